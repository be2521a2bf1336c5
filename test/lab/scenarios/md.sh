#!/bin/bash
# lib/md mirrors, checks and recovers real arrays without a superblock
# lab: suites=bookworm,trixie xen=no time=300 gotest=./lib/md
. /lab/lib.sh

lab_baseline
export XENLVM_LAB=1
lab_gotest ./lib/md >/run/md.log 2>&1 || fail "$(cat /run/md.log; dmesg | tail -n 30)"
cat /run/md.log
check "nothing was skipped" test "$(grep -c -- '--- SKIP' /run/md.log || true)" = 0
lab_leftovers
