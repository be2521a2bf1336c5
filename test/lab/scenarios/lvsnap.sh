#!/bin/bash
# lvsnap creates, mounts, watches, loses and removes snapshots of thick and thin volumes
# lab: xen=no vg=4G time=400
. /lab/lib.sh

# refused STATUS TEXT COMMAND...: a command must fail so, and leave nothing.
refused() {
    local want=$1 text=$2 got=0 said
    shift 2
    said=$("$@" 2>&1) || got=$?
    [[ $got == "$want" && $said == *"$text"* ]] || fail "$*: status $got, said: $said; want $want, $text"
    test -z "$(lab_new)" || fail "$* left: $(lab_new)"
    echo "ok: refused: $text"
}

lab_vg
lab_images_lv 512M
lab_image /srv/images/vm3.img 64M
lvcreate -q -y -T -L 512M vg0/pool
lvcreate -q -y -T -V 512M -n thin vg0/pool
mkfs.ext4 -q /dev/vg0/thin
mkdir -p /srv/thin && mount /dev/vg0/thin /srv/thin
echo data >/srv/thin/file
sync
lab_baseline

refused 2 "want VG/LV" lvsnap create images
refused 2 "want VG/LV" lvsnap create 'vg0/im ages'
refused 3 "cannot find volume vg0/nope" lvsnap create vg0/nope
refused 3 "it is a thin pool" lvsnap create vg0/pool
lvcreate -q -y -n filler -l 95%FREE vg0
lab_baseline
refused 3 "has only" lvsnap create --size 100%ORIGIN vg0/images
lvremove -q -y vg0/filler
lab_baseline
refused 3 "not a snapshot" lvsnap mount vg0/images /mnt
refused 3 "not a snapshot made by us" lvsnap remove vg0/images

check "a dry run" lvsnap create --dry-run vg0/images
test -z "$(lab_new)" || fail "a dry run made $(lab_new)"

check "create, thick" test "$(lvsnap create --size 64M vg0/images)" = /dev/vg0/images-snap
check "again: nothing to do" test "$(lvsnap create vg0/images 2>&1 >/dev/null)" = "lvsnap: nothing to do: snapshot vg0/images-snap exists"
check "create, thin" test "$(lvsnap create vg0/thin)" = /dev/vg0/thin-snap
check "mount an image in the thick one" lvsnap mount --image vm3.img vg0/images-snap /mnt/image
check "its file system is there" test -d /mnt/image/lost+found
check "nobody can write to it" test "$(findmnt -n -o VFS-OPTIONS /mnt/image)" = "$(findmnt -n -o VFS-OPTIONS /mnt/image | grep "^ro,.*nosymfollow")"
check "mount the thin one" lvsnap mount vg0/thin-snap /mnt/thin
check "it holds what the origin held" test "$(cat /mnt/thin/file)" = data
lvsnap list
check "list" test "$(lvsnap list --json | jq -r '[.snapshots[] | .snapshot + " " + .state + " " + .owner] | sort | join(",")')" = \
    "vg0/images-snap valid xenlvm,vg0/thin-snap valid xenlvm"
lvsnap watch vg0/images-snap >"$LAB_RESULT/watch" 2>&1 &
watch=$!

lvs --reportformat json --units b --nosuffix --binary -o "$(lvsnap list --verbose 2>&1 >/dev/null | sed -n 's/.* -o \([^ ]*\) .*/\1/p')" >"$LAB_RESULT/lvs.json"

echo "overflow the thick one"
lvsnap create --quiet --size 8M --name tiny vg0/images
status=0
(sleep 2 && dd if=/dev/urandom of=/srv/images/big bs=1M count=40 conv=fsync status=none) &
lvsnap watch vg0/tiny >"$LAB_RESULT/lost" 2>&1 || status=$?
cat "$LAB_RESULT/lost"
check "a lost snapshot ends the watch with status 1" test "$status" = 1
check "and says so" grep -q "cannot use snapshot vg0/tiny: the snapshot overflowed and is lost" "$LAB_RESULT/lost"
wait %2 2>/dev/null || true
check "it is listed as lost" test "$(lvsnap list --json | jq -r '.snapshots[] | select(.snapshot == "vg0/tiny").state')" = lost
status=0
lvsnap mount vg0/tiny /mnt/tiny 2>"$LAB_RESULT/refused" || status=$?
check "it is not mounted" test "$status" = 3
lvs --reportformat json --units b --nosuffix --binary -o "$(lvsnap list --verbose 2>&1 >/dev/null | sed -n 's/.* -o \([^ ]*\) .*/\1/p')" >"$LAB_RESULT/lvs.json"
check "and can be removed" lvsnap remove vg0/tiny

echo "extend one in time"
lvsnap create --quiet --size 16M --name grows vg0/images
lvsnap watch --extend 64M --at 40 vg0/grows >"$LAB_RESULT/grows" 2>&1 &
grows=$!
dd if=/dev/urandom of=/srv/images/big bs=1M count=10 oflag=direct conv=notrunc status=none
extended() { [ "$(lvs --noheadings --units m --nosuffix -o lv_size vg0/grows | cut -d. -f1 | tr -d ' ')" -gt 60 ]; }
wait_for 20 extended || fail "the snapshot was not extended"
check "remove it" lvsnap remove vg0/grows
wait "$grows" || fail "the watch of a removed snapshot failed: $(cat "$LAB_RESULT/grows")"

check "remove the thick one with all that stands on it" lvsnap remove vg0/images-snap
wait "$watch" || fail "the watch of a removed snapshot failed: $(cat "$LAB_RESULT/watch")"
check "remove the thin one" lvsnap remove vg0/thin-snap
check "removed is removed" lvsnap remove vg0/thin-snap
rm /srv/images/big
lab_leftovers
