#!/bin/bash
# Xen boots with a working toolstack, and a volume group is made
# lab: vg=2G time=120
. /lab/lib.sh

lab_vg
lab_images_lv 1G
lab_baseline
check "dom0 runs under Xen" test "$(cat /sys/hypervisor/type)" = xen
check "xl lists dom0 alone" test "$(xl list | awk 'NR > 1 { print $1 }')" = Domain-0
xl info | grep -E '^(release|xen_version|virt_caps|free_memory)'
lab_result xen_version "$(xl info xen_version)"
lab_leftovers
