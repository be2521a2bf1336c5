#!/bin/bash
# domuswitch rehearse: a copy boots from a snapshot of the new volume while the DomU writes on; it says so if it does not
# lab: suites=bookworm:full vg=3G time=900
. /lab/lib.sh

# rehearses STATUS PATTERN [FLAG...]: a rehearsal of vm3 ends so and says so, nothing is left, and vm3 writes on.
rehearses() {
    local want=$1 pattern=$2 status=0 id records
    shift 2
    id=$(xl domid vm3) records=$(lab_records vm3)
    domuswitch rehearse "$@" vm3 >/run/lines 2>/run/said || status=$?
    cat /run/said
    [ "$status" = "$want" ] || fail "status $status, not $want"
    grep -qE -- "$pattern" /run/said || fail "it does not say: $pattern"
    [ -z "$(lab_new)" ] || fail "left: $(lab_new)"
    [ "$(xl domid vm3)" = "$id" ] && cmp /etc/xen/vm3.cfg /run/vm3.cfg
    lab_wait_records vm3 $((records + 20)) 120
}

# begin: a rehearsal of vm3 that waits in vain, until its copy runs.
begin() {
    domuswitch rehearse --until console:never vm3 2>/run/said &
    pid=$!
    wait_for 120 grep -q '| GUEST start' /run/said || fail "no copy runs: $(cat /run/said)"
}

up='console:^GUEST verified disk=xvda'

lab_vg
lab_images_lv 512M
lab_image /srv/images/vm3.img 128M
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
echo 'uuid = "5d3c9a52-6c8b-4b57-9e9e-3d0f0f4f2a11"' >>/etc/xen/vm3.cfg
echo 'pci = []' >>/etc/xen/vm3.cfg
cp /etc/xen/vm3.cfg /run/vm3.cfg
lab_start vm3
lab_wait_records vm3 30 120
lab_baseline
check "nothing is copied yet" rehearses 3 'no copy of a disk of it is recorded'
check "a first pass" imgconv --snapshot --to vg0 vm3
sectors=$(awk '{ print $7 }' "/sys/block/$(basename "$(readlink -f /dev/vg0/vm3-xvda)")/stat")
lab_baseline

echo "1. it boots"
check "the copy comes up" rehearses 0 'vm3-rehearsal came up: its console showed "GUEST verified disk=xvda' --until "$up"
check "with the first line of its console" grep -q '| GUEST start' /run/said
check "without its PCI devices" grep -q 'made without the settings pci' /run/said
check "its lines can go on" grep -qP '^vm3\txvda\t/srv/images/vm3.img\t/dev/vg0/vm3-xvda\tcopied$' /run/lines
check "it was another domain" test "$(jq -r 'select(.kind == "rehearsed") | .data.came_up' /var/lib/xenlvm/vm3/journal.jsonl)" = true
check "nothing was written to the volume" test "$(awk '{ print $7 }' "/sys/block/$(basename "$(readlink -f /dev/vg0/vm3-xvda)")/stat")" = "$sectors"
check "too much memory is refused" rehearses 3 'MiB free: .* are missing|GiB free: .* are missing' --memory 100000
check "the lines of a dry run are lines for a shell" bash -n <(domuswitch rehearse --dry-run vm3)

echo "2. interrupted, and killed"
begin
kill -INT $pid
status=0
wait $pid || status=$?
cat /run/said
check "SIGINT: status 130" test $status = 130
check "everything is undone" test -z "$(lab_new)"
begin
kill -KILL $pid
wait $pid || true
check "a killed one leaves its copy" lab_running vm3-rehearsal
lab_new
check "the next one clears, and boots" rehearses 0 'vm3-rehearsal came up: it has run for 2s' --until 2s
check "and says so" grep -q 'clearing what an earlier rehearsal of vm3 left' /run/said

echo "3. it does not boot"
dd if=/dev/urandom of=/dev/vg0/vm3-xvda bs=1M count=8 oflag=direct conv=notrunc status=none
check "the copy does not come up" rehearses 1 'this was not seen within 30s' --until "$up" --timeout 30s
check "its console says why" grep -q '| GUEST FAIL cannot mount xvda' /run/said
echo 'extra = "console=hvc0 quiet rdinit=/nothing root=/dev/nothing panic=1"' >>/etc/xen/vm3.cfg
cp /etc/xen/vm3.cfg /run/vm3.cfg
check "a copy that panics" rehearses 1 'it ended after [0-9]+ s, by a crash, a reboot or a shutdown' --until "$up"
check "its console says why" grep -qE '^domuswitch:   .*Kernel panic' /run/said

lab_tell vm3 verify
check "stop" lab_shutdown vm3
lab_judge vm3
lab_leftovers
