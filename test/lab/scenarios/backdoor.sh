#!/bin/bash
# a DomU moves onto its volume and back into its image, twice, and loses nothing that it wrote there: also when the way
# back is killed; a back door that overflowed is refused
# lab: suites=bookworm:full vg=3G time=3600
. /lab/lib.sh

image=/srv/images/vm3.img volume=vg0/vm3-xvda

# refuses STATUS PATTERN COMMAND...: a command that must fail, and say why.
refuses() {
    local want=$1 pattern=$2 status=0
    shift 2
    "$@" >/run/said 2>&1 || status=$?
    cat /run/said
    [ "$status" = "$want" ] && grep -qE -- "$pattern" /run/said
}

runs_on() { domuswitch show --quiet vm3 | cut -f 7 | grep -qxF -- "$1"; }
writes() { lab_wait_records vm3 $(($(lab_records vm3) + 20)) 180; }
stamp() { stat -c %.9Y "$image"; }

# there FLAG...: onto the volume, with a back door.
there() {
    check "it moves onto its volume" image-to-lv --keep-back-door "$@" vm3
    check "it has its volume" runs_on "/dev/$volume"
    check "there is a back door" test -n "$(lvs --noheadings -S lv_tags=xenlvm.back-door)"
    left=$(stamp)
}

# back: into the image, with all that was written since.
back() {
    check "it comes back" domuswitch revert --json vm3 >/run/reverted
    head -n 1 /run/reverted | tee /run/json
    lab_result "replayed_bytes" "$(jq '.replayed[0].bytes_changed' /run/json)"
    check "it has its image" runs_on "$image"
    check "its back door is gone" test -z "$(lvs --noheadings -S lv_tags=xenlvm.back-door)"
    check "nothing else is left" test -z "$(lab_new | grep -v '^\(lv\|dm\) vg0[/-]vm3-*xvda\|^loop\|^domain' || true)"
    writes
}

lab_vg
lab_images_lv 1G
lab_image "$image" 160M
lab_domu vm3 "file:$image,xvda,w"
check "it starts on its image" lab_start vm3
lab_wait_records vm3 20 120
lab_baseline

# 1. there, and back while it runs
there --to vg0
lab_tell vm3 fill more 2M
writes
check "nobody wrote to the image meanwhile" test "$(stamp)" = "$left"
back
check "what was replayed was compared" test "$(jq -r '.replayed[0].verified' /run/json)" = written

# 2. there, and back with a kill in the middle
there
lab_tell vm3 fill again 20M
lab_tell vm3 delete more
writes
domuswitch revert vm3 >/run/killed 2>&1 &
pid=$!
until [ "$(stamp)" != "$left" ]; do
    kill -0 "$pid" || fail "it ended before it wrote: $(cat /run/killed)"
    sleep 0.02
done
kill -KILL "$pid"
wait "$pid" || true
check "it was killed in the middle" test "$(jq -rs 'map(.kind) | last' /var/lib/xenlvm/vm3/journal.jsonl)" = replaying
check "what it wrote is not given up by mistake" refuses 3 'is half-written' domuswitch revert --yes vm3
cp /etc/xen/vm3.cfg /run/on-volume
cp "$(find /var/lib/xenlvm/vm3 -name 'config.*' | sort | tail -n 1)" /etc/xen/vm3.cfg
check "it does not start from half an image" refuses 3 'is half-written' domuswitch start vm3
check "nor is that copied" refuses 3 'is half-written' imgconv --snapshot vm3
cp /run/on-volume /etc/xen/vm3.cfg
check "it starts on its volume" domuswitch start vm3
writes
back
check "the whole image was compared" test "$(jq -r '.replayed[0].verified' /run/json)" = full

check "it shuts down" lab_shutdown vm3
lab_judge vm3
check "the file system in its image is clean" e2fsck -fn "$image"

# 3. a back door that overflowed
check "it moves once more, stopped" image-to-lv --keep-back-door --back-door-size 8M vm3
dd if=/dev/urandom of="/dev/$volume" bs=1M count=24 oflag=direct status=none
check "an overflowed back door is refused" refuses 3 'the back door of disk xvda is of no use: .*overflowed and is lost' domuswitch revert vm3
check "that is said beside what would be lost" grep -q 'the old ones lack what it has written since' /run/said
check "it goes back when told so" domuswitch revert --yes vm3
check "the image is as it was" e2fsck -fn "$image"
check "there is no back door" test -z "$(lvs --noheadings -S lv_tags=xenlvm.back-door)"
lab_leftovers "lv $volume xenlvm.domain.vm3" 'dm vg0-vm3--xvda'
