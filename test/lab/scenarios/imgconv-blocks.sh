#!/bin/bash
# imgconv --snapshot copies a running DomU's image twice by blocks; the second time only the delta
# lab: vg=6G time=600
. /lab/lib.sh

lab_vg
lab_images_lv 2G
lab_image /srv/images/vm3.img 512M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_start vm3
lab_wait_records vm3 20 120
lab_baseline

check "a dry run changes nothing" imgconv --snapshot --to vg0 --dry-run vm3
check "nothing new" test -z "$(lab_new)"
check "first pass" imgconv --snapshot --to vg0 --verbose vm3
check "second pass" imgconv --snapshot vm3
check "list" lvsnap list
check "stop" lab_shutdown vm3
check "final pass" imgconv --snapshot --final vm3
check "identical" cmp -n "$(stat -c %s /srv/images/vm3.img)" /srv/images/vm3.img /dev/vg0/vm3-xvda
check "clean" e2fsck -fn /dev/vg0/vm3-xvda
cat /var/lib/xenlvm/vm3/journal.jsonl
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'
