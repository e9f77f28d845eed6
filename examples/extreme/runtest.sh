#!/bin/bash
# Extreme: a test without any cleanup phase. All that it does to the machine, a loop device, a file
# system and a mount, is undone by the cleanup that it has prepended, whether it ends or is killed.
# Each entry is prepended before the change that it undoes, so that there is no moment at which a kill
# leaves something behind. Needs root and a free loop device.
cd "$(dirname "$0")" || exit 1
. ../setup.sh

# Finds the device by its file: which one it is will be known only when it is too late to prepend.
detach() { # <file>
  local device
  for device in $(losetup -j "$1" | cut -d: -f1); do
    losetup -d "$device"
  done
}

# -f names a device that was free a moment ago; another process may have taken it since.
attach() { # <file>
  local try
  for try in 1 2 3 4 5 6 7 8 9 10; do
    losetup -f --show "$1" && return
    echo "try $try: no free loop device" >&2
    sleep 0.2
  done
  return 1
}

rlJournalStart

ex_phase "A symlink on an ext3 file system"
# In the state directory nobody else can have made it first, as could be with a name in /var/tmp.
dir=$BEAKERLIB_DIR/extreme
rlPrependCleanup "rm -rf --one-file-system '$dir'"
ex_run "mkdir '$dir'" "make a directory" || ex_give_up "no directory"

disk=$dir/disk mnt=$dir/mnt
ex_run "dd if=/dev/zero of='$disk' bs=1M count=100 status=none" "make a file of 100 MB"

rlPrependCleanup "detach '$disk'"
loop=$(attach "$disk") || ex_give_up "no loop device"
ex_run "mkfs.ext3 -q '$loop'" "make a file system on $loop"

ex_run "mkdir '$mnt'" "make a mount point"
rlPrependCleanup "umount -f '$mnt' 2>/dev/null || ! mountpoint -q '$mnt'"
ex_run "mount '$loop' '$mnt'" "mount it" || ex_give_up "no mount"

# In there, so that as long as this shell lives the file system cannot be unmounted.
cd "$mnt" || ex_give_up "cannot enter $mnt"
ex_run "echo text >file"
ex_run "ln -s file link"
ex_middle "$dir $loop"
ex_run "[ -L link ]" "link is a symlink"
ex_run "[ \"\$(cat link)\" = text ]" "the text is read through it"
ex_phase_end

cd / || exit 1
ex_end
