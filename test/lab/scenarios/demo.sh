#!/bin/bash
# the main job: a DomU that writes moves from its image file onto a logical volume
# lab: suites=bookworm,trixie vg=9G time=1200
. /lab/lib.sh

# seconds FROM TO: between two stamps, with one decimal.
seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.1f", b - a }'; }

# stamp: put the time in front of every line, show the line, and keep both.
stamp() {
    local line
    while IFS= read -r line; do
        echo "$line"
        printf '%s %s\n' "$EPOCHREALTIME" "$line" >>"$LAB_RESULT/timeline"
    done
}

# at TEXT: when a line with that text was printed.
at() { awk -v text="$1" 'index($0, text) { print $1; exit }' "$LAB_RESULT/timeline"; }

# wrote PASSES: how many bytes the copies did, from the journal; PASSES as in jq's slices.
wrote() { jq -s "[.[] | select(.kind == \"copied\")][$1] | map(.data.bytes_written) | add" /var/lib/xenlvm/vm3/journal.jsonl; }

lab_vg
lab_images_lv 4G
echo "an image of 2 GiB with 1 GiB of data"
lab_image /srv/images/vm3.img 2G
mkdir /mnt/image
mount -o loop /srv/images/vm3.img /mnt/image
head -c 32M /dev/urandom >/tmp/random
for i in {1..32}; do
    { echo "part $i" && cat /tmp/random; } >"/mnt/image/part$i"
done
cp -a /etc /mnt/image/etc
umount /mnt/image
rmdir /mnt/image
rm /tmp/random

lab_domu vm3 file:/srv/images/vm3.img,xvda,w
lab_baseline
lab_start vm3
lab_wait_records vm3 50 180

echo
echo "image-to-lv --to vg0 vm3"
status=0
image-to-lv --to vg0 vm3 2> >(stamp) || status=$?
((status == 0)) || fail "image-to-lv ended with status $status"
complete() { [ -n "$(at 'runs on its new disks')" ]; }
wait_for 10 complete || fail "the timeline is not complete"

before=$(lab_records vm3)
lab_wait_records vm3 $((before + 50)) 180
check "shut down after the move" lab_shutdown vm3
check "the file system on the volume is clean" e2fsck -fn /dev/vg0/vm3-xvda
log=/var/log/xen/console/guest-vm3.log
judge "$log" >"$LAB_RESULT/judge.json" || fail "records were lost: $(cat "$LAB_RESULT/judge.json")"
gap=$(jq .domains.vm3.max_gap_s "$LAB_RESULT/judge.json")

# What it wrote on the volume is proven by its next start.
lab_start vm3
wait_for 120 lab_said vm3 '^GUEST verified disk=xvda ' 3 || fail "it does not verify its records"
check "shut down again" lab_shutdown vm3
ns() { awk -v t="$1" 'BEGIN { printf "%.0f", t * 1e9 }'; }
judge --window "0,$(ns "$(at 'step 1-7')")" --window "$(ns "$(at 'step 1-7')"),$(ns "$(at 'step 9:')")" \
    --window "$(ns "$(at 'step 9:')"),$(ns 9e9)" "$log" >"$LAB_RESULT/judge.json" || fail "records were lost: $(cat "$LAB_RESULT/judge.json")"
lost=$(jq .lost "$LAB_RESULT/judge.json")
acked() { jq ".domains.vm3.windows[$1].records" "$LAB_RESULT/judge.json"; }

t1=$(at 'step 1-7') t8=$(at 'step 8:') t9=$(at 'step 9:') t10=$(at 'step 10:') t11=$(at 'step 11:') end=$(at 'runs on its new disks')
running=$(wrote :-1) final=$(wrote -1:)
cat <<TIMELINE

Unless XENLVM_LAB_KVM=1, the processor of this host is emulated, about 20 times slower
than a real one: compare the seconds with each other, not with a real host.

what happened                                        seconds
  1-7  copy from a snapshot, the DomU runs      $(printf %12s "$(seconds "$t1" "$t8")")   $(numfmt --to=iec "$running") written
  8    shut the DomU down                       $(printf %12s "$(seconds "$t8" "$t9")")
  9    copy what changed                        $(printf %12s "$(seconds "$t9" "$t10")")   $(numfmt --to=iec "$final") written
  10   change its configuration                 $(printf %12s "$(seconds "$t10" "$t11")")
  11   start it                                 $(printf %12s "$(seconds "$t11" "$end")")

the DomU's own heartbeat was silent for         $(printf %12.1f "$gap")
records acknowledged before the move            $(printf %12s "$(acked 0)")
             during the copy and the shutdown   $(printf %12s "$(acked 1)")
             after it, on the volume            $(printf %12s "$(acked 2)")
records lost                                    $(printf %12s "$lost")

TIMELINE
lab_result records_lost "$lost"
lab_result records_before "$(acked 0)"
lab_result records_during "$(acked 1)"
lab_result records_after "$(acked 2)"
lab_result first_pass_bytes "$(wrote :1)"
lab_result final_pass_bytes "$final"
lab_result first_pass_s "$(seconds "$t1" "$t8")"
lab_result stop_s "$(seconds "$t8" "$t9")"
lab_result final_pass_s "$(seconds "$t9" "$t10")"
lab_result switch_s "$(seconds "$t10" "$t11")"
lab_result start_s "$(seconds "$t11" "$end")"
lab_result interruption_s "$gap"
lab_leftovers 'lv vg0/vm3-xvda xenlvm.domain.vm3' 'dm vg0-vm3--xvda'
