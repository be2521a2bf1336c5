#!/bin/bash
# imgconv is killed at many points, politely and not: nothing is left, the DomU does not notice
# lab: vg=6G time=1800
. /lab/lib.sh

lab_vg
lab_images_lv 1G
lab_image /srv/images/vm3.img 256M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 64M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_start vm3
lab_wait_records vm3 30 120
lab_baseline

said() { grep -qF -- "$1" /run/imgconv; }

# hit SIGNAL TEXT [SECONDS [FILE]]: start a copy that takes some seconds, and send the signal when it
# says the text, or so much later, or so long after there is a FILE.
hit() {
    imgconv --snapshot --to vg0 --verbose --bwlimit 8M vm3 >/dev/null 2>/run/imgconv &
    local pid=$! i
    for ((i = 0; i < 6000; i++)); do
        ! said "$2" || break
        kill -0 "$pid" 2>/dev/null || fail "imgconv ended before it said $2: $(cat /run/imgconv)"
        sleep 0.01
    done
    if [ -n "${4-}" ]; then wait_for 60 compgen -G "$4" >/dev/null || fail "it wrote no $4"; fi
    [ -z "${3-}" ] || sleep "$3"
    kill "-$1" "$pid"
    status=0
    wait "$pid" || status=$?
}

points=(
    'write down where xvda goes'
    'create volume vg0/vm3-xvda'
    'create snapshot vg0/images-snap-vm3'
    'mount /dev/vg0/images-snap-vm3'
    'copy /srv/images/vm3.img'
)
for point in "${points[@]}"; do
    hit TERM "] $point"
    check "SIGTERM at: $point: status 130" test "$status" = 130
    check "everything undone" test -z "$(lab_new)"
    lab_survived
done
for point in "${points[@]}"; do
    hit KILL "] $point"
    check "SIGKILL at: $point" test "$status" = 137
    echo "left: $(lab_new | tr '\n' ';')"
    hit TERM '] write down where xvda goes' # the next run clears first
    check "cleared by the next run" test -z "$(lab_new | grep -v '^\(lv\|dm\) vg0[/-]vm3-*xvda' || true)"
    lvremove -q -y vg0/vm3-xvda >/dev/null 2>&1 || true # where it was killed behind its creation
    lab_survived
done
# Before the first checkpoint it finds out what is in use, which takes long here.
hit KILL '] copy /srv/images/vm3.img' 5 '/var/lib/xenlvm/vm3/xvda-*.partial'
check "a whole run after SIGKILL" imgconv --snapshot --to vg0 --json vm3 >/run/json 2>/run/imgconv
cat /run/imgconv
check "goes on where it was" said 'going on with the pass that was killed'
check "and does not write again what was there" test "$(head -n 1 /run/json | jq '.disks[0].bytes_written')" -lt $((62 << 20))
check "and compares all" test "$(head -n 1 /run/json | jq -r '.disks[0].verified')" = full
check "nothing but the volume" test "$(lab_new | xargs)" = "dm vg0-vm3--xvda lv vg0/vm3-xvda xenlvm.domain.vm3"

volume='dm vg0-vm3--xvda lv vg0/vm3-xvda xenlvm.domain.vm3'
for signal in TERM KILL; do
    check "a pass that keeps its snapshot" imgconv --snapshot --keep-base vm3
    check "which is there" lvs vg0/images-base-vm3
    hit $signal '] find what changed since vg0/images-base-vm3'
    check "a run after SIG$signal at the comparison" imgconv --snapshot vm3
    check "nothing but the volume" test "$(lab_new | xargs)" = "$volume"
    lab_survived
done
check "once more" imgconv --snapshot --keep-base vm3
hit KILL '] write down where xvda goes'
check "a base that nobody needs is dropped" imgconv --snapshot --drop-base vm3
check "nothing but the volume, with its tag" test "$(lab_new | sed 's/xenlvm.incomplete,\|,xenlvm.incomplete//' | xargs)" = "$volume"

hit KILL '] copy /srv/images/vm3.img' 1
check "a delta that was killed leaves the tag" test "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | tr -d ' ' | grep -c incomplete)" = 1
check "stop" lab_shutdown vm3
check "and the rerun makes it whole" imgconv --snapshot --final --whole vm3
check "identical" cmp -n "$(stat -c %s /srv/images/vm3.img)" /srv/images/vm3.img /dev/vg0/vm3-xvda
check "without the tag" test "$(lvs --noheadings -o lv_tags vg0/vm3-xvda | tr -d ' ')" = xenlvm.domain.vm3
check "start" lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 2 || fail "it does not verify its records"
check "stop" lab_shutdown vm3
lab_points vm3
check "the DomU was never paused for long" test "$(jq '.domains.vm3.max_pause_s < 20' "$LAB_RESULT/judge-vm3.json")" = true
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'
