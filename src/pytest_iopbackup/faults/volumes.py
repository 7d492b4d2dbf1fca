"""A place of a local stack made a file system of its own, with what lies there, and made a plain directory again.

Whatever a fault mounts lies below the stack's directory: ``stack/mounts.py`` sweeps it where nobody heals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.site import Site

_SBIN = "PATH=$PATH:/usr/sbin:/sbin"
_MAKE = {
    "tmpfs": 'mount -t tmpfs -o "mode=700,$3" iop "$2/volume"',
    "ext4": f"""
{_SBIN}
truncate -s "$3" "$2/image"
mkfs.ext4 -q -F -m 0 -I 256 "$2/image"
mount -o loop "$2/image" "$2/volume"
rmdir "$2/volume/lost+found"
""",
}
# From here on nobody writes below $1: what is there is covered by itself, read-only, at once. $2/origin leads below.
_STILL = """
mkdir -p "$2/origin" "$2/still"
mount --bind --make-private "$1" "$2/still"
mount -o remount,bind,ro "$2/still"
mountpoint -q "$2/origin" || mount --bind --make-private "$1" "$2/origin"
mount --bind "$2/still" "$1"
umount --lazy "$2/still"
"""
# Without what is half written: whoever has it open goes on in the old file, and then renames what is at the old path.
_CLEAN = 'find "$2/{}" -type f "(" -name "*.tmp" -o -name "*.new" -o -name ".*.[0-9]*" ")" -delete'
_COVER = f"""
cp -a "$2/origin/." "$2/volume/"
{_CLEAN.format("volume")}
mount --bind "$2/volume" "$1"
touch "$2/used"
"""
_BARE = 'find "$2/origin" -mindepth 1 -delete'
_UNMOUNT = 'while mountpoint -q "$1"; do umount --lazy "$1"; done'
# Read-only first, which takes that nobody has a file open to write: what is acknowledged is in the copy. What a bare
# mount point holds, a push that was under way has made there, and acknowledged.
_COPY_BACK = f"""
rest() {{
    tries=0
    until mount -o "remount,$1" "$3" 2>"$2/refusal"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || {{ cat "$2/refusal" >&2; exit 1; }}
        sleep 0.1
    done
}}
if [ -e "$2/used" ]; then
    if [ ! -e "$2/bare" ]; then rest ro "$2" "$2/volume"; find "$2/origin" -mindepth 1 -delete
    elif mountpoint -q "$1"; then rest bind,ro "$2" "$1"
    else {_STILL} fi
    {_CLEAN.format("origin")}
    cp -a "$2/volume/." "$2/origin/"
    {_CLEAN.format("origin")}
    rm "$2/used"
fi
"""
_USED = 'du -s --block-size=1 "$1" | cut -f1'
_FILES = 'find "$1" | wc -l'
# An empty directory is left of each that was a mount, or nothing is deleted: the place itself would be.
_REMOVE = """
for part in still origin; do
    while mountpoint -q "$2/$part"; do umount --lazy "$2/$part"; done
    [ ! -e "$2/$part" ] || rmdir "$2/$part"
done
while mountpoint -q "$2/volume"; do umount --lazy "$2/volume"; done
rm -rf "$2"
"""


@dataclass(frozen=True, slots=True)
class Volume:
    """What a place of a stack can be made; takes root."""

    site: Site
    place: Path

    def make_tmpfs(self, *, room: int | None = None, inodes: int | None = None) -> None:
        """Move what lies there to a file system in memory, with room for so many bytes, or inodes, more."""
        options = []
        if room is not None:
            options.append(f"size={self._measure(_USED) + room}")
        if inodes is not None:
            options.append(f"nr_inodes={self._measure(_FILES) + inodes}")
        self._make("tmpfs", ",".join(options))

    def make_ext4(self, *, room: int) -> None:
        """Move what lies there to an ext4 in a file, with room for so many bytes more."""
        self._make("ext4", str(self._measure(_USED) + room))

    def bind(self) -> None:
        """Make a mount of it, of the same file system; its mount point is empty."""
        self._script('mkdir -p "$2/volume"; touch "$2/bare"', _STILL, _COVER, _BARE)

    def cover(self, options: str) -> None:
        """Mount another, empty file system over it; what lay there is out of sight until :meth:`unmount`."""
        owner = self.site.script('stat -c "uid=%u,gid=%g,mode=%a" "$1"', self.place).strip()
        self.site.script('mount -t tmpfs -o "$2" iop "$1"', self.place, f"{owner},{options}")

    def remount_read_only(self) -> None:
        """Let nobody write there any more."""
        self._script(_STILL)

    def freeze(self) -> None:
        """Let everybody who writes there wait until :meth:`thaw`."""
        self._script(_SBIN, 'fsfreeze --freeze "$1"')

    def thaw(self) -> None:
        """Let them go on; well if it is not frozen."""
        self._script(_SBIN, '! mountpoint -q "$1" || fsfreeze --unfreeze "$1" 2>/dev/null || true')

    def unmount(self) -> None:
        """Take away whatever is mounted there."""
        self._script(_UNMOUNT)

    def put_back(self) -> None:
        """Make it a plain directory again, with what is in the volume now."""
        self._script(_COPY_BACK, _UNMOUNT, _REMOVE)

    @property
    def mounted(self) -> str:
        """What is mounted there, as the database's service sees it: file system and options; empty if nothing is."""
        found = self.site.run(
            "findmnt", "--noheadings", "--output=FSTYPE,OPTIONS", f"--mountpoint={self.place}", check=False
        )
        return " ".join((found.stdout.splitlines() or [""])[-1].split())

    def space(self) -> tuple[int, int]:
        """Return how many bytes are free there, and its size."""
        free, size = self.site.script('df --block-size=1 --output=avail,size "$1" | tail -1', self.place).split()
        return int(free), int(size)

    def fill(self, *, leave: int = 0) -> None:
        """Write a file, or add to it, until so many bytes are left; without any, until there is no space."""
        self.site.script(
            'head -c $(($(df --block-size=1 --output=avail "$1" | tail -1) + 65536 * !$2 - $2)) /dev/zero'
            ' >>"$1/filler" || [ "$2" = 0 ]',
            self.place,
            str(leave),
        )

    def fill_inodes(self) -> None:
        """Make files until no more can be made."""
        self.site.script(
            'mkdir "$1/filler"; i=0; while touch "$1/filler/$i" 2>/dev/null; do i=$((i + 1)); done', self.place
        )

    def empty(self) -> None:
        """Remove what filled it."""
        self.site.script('rm -rf "$1/filler"', self.place)

    def refuses(self, *argv: str, words: str) -> str:
        """Return the words with which a program fails there, as the service's user. Raises ProofError where not."""
        result = self.site.run("env", "LC_ALL=C", *argv, check=False)
        if result.exit_code == 0 or words not in result.stderr:
            raise ProofError(f"{' '.join(argv)} said {result.stderr.strip() or 'nothing'!r}, not {words!r}")
        return result.stderr.strip().splitlines()[0]

    def _make(self, kind: str, options: str) -> None:
        self._script('mkdir -p "$2/volume"', _MAKE[kind], _STILL, _COVER, options=options)

    def _script(self, *parts: str, options: str = "") -> None:
        self.site.script("\n".join(parts), self.place, self.hold, options)

    def _measure(self, script: str) -> int:
        return int(self.site.script(script, self.place))

    @property
    def hold(self) -> Path:
        """Where the volume and what was in its place are meanwhile."""
        return self.site.stack.directory / "volumes" / self.place.name
