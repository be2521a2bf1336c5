#!/bin/bash
# domuswitch status tells each state of a move, abort goes back from it, and purge ends it for good
# lab: vg=4G time=1200
. /lab/lib.sh

# tells STATUS EXPRESSION: domuswitch status ends so, and the expression of jq is true of the domain.
tells() {
    local got=0
    domuswitch status --json vm3 >/run/status 2>/run/status.err || got=$?
    jq -c '.domains[0]' /run/status
    [ "$got" = "$1" ] || { echo "status $got, not $1"; cat /run/status.err; return 1; }
    jq -e ".domains[0] | $2" /run/status >/dev/null || { echo "not true: $2"; return 1; }
}
quietly() { "$@" >/run/out 2>&1 || fail "$*: $(cat /run/out)"; }
# aborted: all is as it was, and a second abort says so.
aborted() {
    check "abort" domuswitch abort vm3
    check "the configuration is as before" cmp /etc/xen/vm3.cfg /run/vm3.before
    domuswitch abort vm3 2>&1 | grep -q 'nothing to do' || fail "there was more to abort"
}

lab_vg
lab_images_lv 512M
lab_image /srv/images/vm3.img 64M
mkdir /mnt/image && mount -o loop /srv/images/vm3.img /mnt/image
head -c 32M /dev/urandom >/mnt/image/data
umount /mnt/image && rmdir /mnt/image
lab_domu vm3 file:/srv/images/vm3.img,xvda,w
cp /etc/xen/vm3.cfg /run/vm3.before
lab_start vm3
lab_wait_records vm3 20 120
lab_baseline
check "before: nothing is to do" tells 0 '.state == "running" and .disks == [] and .leftovers == [] and .unread == [] and .todo == false'

# 1. a copy that is killed
imgconv --snapshot --to vg0 --bwlimit 4M vm3 >/dev/null 2>/run/imgconv &
pid=$!
wait_for 120 compgen -G '/var/lib/xenlvm/vm3/xvda-*.partial' >/dev/null || fail "it wrote no checkpoint: $(cat /run/imgconv)"
check "a run is at work" tells 10 ".run == {tool: \"imgconv\", pid: $pid} and .leftovers == [] and .disks[0].stage == \"planned\" and .disks[0].done_bytes > 0 and .disks[0].total_bytes == $((64 << 20))"
got=0
domuswitch abort vm3 2>/run/said || got=$?
check "it is not aborted under a run" test "$got $(grep -c "kill $pid" /run/said)" = "3 1"
kill -KILL $pid
wait $pid || true
check "killed: what is left" tells 11 '([.leftovers[].command] | any(contains("lvremove")) and any(contains("umount"))) and .disks[0].done_bytes > 0 and .next == "imgconv --snapshot vm3"'
aborted
check "nothing is left, not even the volume" test -z "$(lab_new)"
check "status says so" tells 0 '.leftovers == [] and .disks[0].stage == "aborted" and .todo == false'

# 2. a copy that is complete
quietly imgconv --snapshot --keep-base --to vg0 vm3
check "copied" tells 11 '.disks[0].stage == "copied" and .disks[0].verified == "full" and .disks[0].copied != null and ([.kept[].kind] | index("base")) != null and .leftovers == [] and .next == "image-to-lv vm3"'
aborted
check "only the finished copy is kept" test "$(lab_new | xargs)" = "dm vg0-vm3--xvda lv vg0/vm3-xvda xenlvm.domain.vm3"
check "and told of" tells 0 '[.kept[] | select(.kind == "volume") | .name] == ["vg0/vm3-xvda"]'
quietly lvremove -q -y vg0/vm3-xvda

# 3. a mirror that is being filled
quietly mdmirror build vm3
check "built" tells 11 '.disks[0].stage == "mirrored" and .disks[0].phase == "built" and .next == "image-to-lv --plan mirror vm3"'
quietly domuswitch restart vm3 xvda=/dev/mapper/xenlvm-vm3-xvda
check "on the mirror" tells 11 '.disks[0].live == "/dev/mapper/xenlvm-vm3-xvda" and .next == "mdmirror add vm3"'
quietly mdmirror add --to vg0 --bwlimit 1M vm3
check "being filled" tells 10 '.disks[0].phase == "recovering" and .disks[0].done_bytes < .disks[0].total_bytes and .next == "mdmirror wait vm3"'
aborted
check "the volume is gone" test ! -e /dev/vg0/vm3-xvda
check "only the device stays that the domain has" tells 0 '.leftovers == [] and [.kept[] | select(.kind == "device") | .name] == ["/dev/mapper/xenlvm-vm3-xvda"]'
lab_wait_records vm3 $(($(lab_records vm3) + 10)) 90
quietly domuswitch stop vm3
check "and goes with it" test -z "$(lab_new | grep -v '^domain')"
sed 's|file:/srv/images/vm3.img|phy:/dev/mapper/xenlvm-vm3-xvda|' /etc/xen/vm3.cfg >/run/vm3.mirrored
! xl create -q /run/vm3.mirrored 2>/run/said || fail "it starts from a mirror that is not there"
echo "ok: what names a mirror that is not there does not start: $(tail -n 1 /run/said)"
lab_gone vm3 || quietly xl destroy vm3

# 4. applied, and not started
imgconv --snapshot --final --to vg0 vm3 >/run/lines || fail "the final pass"
quietly domuswitch apply - </run/lines
check "applied" tells 11 '.state == "stopped" and .disks[0].stage == "applied" and .next == "domuswitch start vm3"'
aborted
quietly domuswitch apply - </run/lines

# 5. over
quietly domuswitch start vm3
check "switched" tells 0 '.disks[0].stage == "switched" and .disks[0].live == "/dev/vg0/vm3-xvda" and .todo == false and .next == "domuswitch purge vm3" and ([.kept[].kind] | index("image")) != null'
got=0
domuswitch abort vm3 2>/run/said || got=$?
check "the cutover is over" test "$got $(grep -c 'domuswitch revert vm3' /run/said)" = "3 1"
lab_wait_records vm3 $(($(lab_records vm3) + 10)) 90
cp /etc/xen/vm3.cfg /run/vm4.cfg
sed 's/"vm3"/"vm4"/; s|phy:/dev/vg0/vm3-xvda|file:/srv/images/vm3.img|' /run/vm4.cfg >/etc/xen/vm4.cfg
got=0
domuswitch purge --yes vm3 2>/run/said || got=$?
check "another domain's image is not deleted" test "$got $(grep -c '/etc/xen/vm4.cfg has it' /run/said)" = "3 1"
rm /etc/xen/vm4.cfg
loop=$(losetup --find --show --read-only /srv/images/vm3.img)
got=0
domuswitch purge --yes vm3 2>/run/said || got=$?
losetup --detach "$loop"
check "nor one that is attached" test "$got $(grep -c "it is attached to $loop" /run/said)" = "3 1"
check "a dry run lists it" grep -q '^rm /srv/images/vm3.img$' <(domuswitch purge --dry-run vm3)
check "purge" domuswitch purge --yes vm3
check "the image is gone" test ! -e /srv/images/vm3.img
check "the journal says so" grep -q '"kind":"purged"' /var/lib/xenlvm/vm3/journal.jsonl
check "nothing is kept" tells 0 '.kept == [] and .next == "" and .disks[0].stage == "switched"'
domuswitch purge --yes vm3 2>&1 | grep -q 'nothing to do' || fail "there was more to purge"
lab_wait_records vm3 $(($(lab_records vm3) + 10)) 90
quietly domuswitch stop vm3
lab_judge vm3
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'
