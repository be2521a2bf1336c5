#!/bin/bash
# lib/xlcfg accepts and refuses what this Xen's own xl accepts and refuses
# lab: suites=bookworm,trixie:full time=900 gotest=./lib/xlcfg
. /lab/lib.sh

lab_baseline
export XENLVM_LAB=1
lab_gotest ./lib/xlcfg -test.run '^TestAgainstRealXL$' >/run/xlcfg.log 2>&1 ||
    fail "xl and xlcfg disagree: $(grep -vE '^ *(--- PASS|=== )' /run/xlcfg.log | head -n 60)"
judged=$(grep -c '^    --- PASS' /run/xlcfg.log || true)
check "no case was skipped" test "$(grep -c -- '--- SKIP' /run/xlcfg.log || true)" = 0
check "every table was judged ($judged cases)" test "$judged" -ge 250
lab_result cases "$judged"
lab_leftovers
