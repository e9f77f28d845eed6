#!/bin/bash
# Extreme: a test without any cleanup phase. All that it does to the machine, a loop device, a file
# system and a mount, is undone by the cleanup that it has prepended, whether it ends or is killed.
# Needs root and a free loop device.
cd "$(dirname "$0")" || exit 1
. ../setup.sh

# Finds the device by its file, so that it can be prepended before there is a device: a kill that
# comes between losetup and the next line leaves nothing attached.
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
dir=$(mktemp -d /var/tmp/extreme-XXXXXX) || ex_give_up "no directory"
rlPrependCleanup "rm -rf --one-file-system '$dir'"

disk=$dir/disk mnt=$dir/mnt
ex_run "dd if=/dev/zero of='$disk' bs=1M count=100 status=none" "make a file of 100 MB"

rlPrependCleanup "detach '$disk'"
loop=$(attach "$disk") || ex_give_up "no loop device"
ex_run "mkfs.ext3 -q '$loop'" "make a file system on $loop"

ex_run "mkdir '$mnt'"
# Before the mount too: no harm if it comes to nothing.
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
