"""Arrays in files, a part at a time: .npy, .npz, .safetensors, zarr, HDF5, and shards of one array; text."""

import glob
import io
import json
import math
import mmap
import os
import re
import sys
import zipfile
import zlib
from array import array as growing
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np

TEXT_BLOCK = 1 << 20  # characters of text that are split at a time: their words take some 60 bytes each
MOST_HEADER = 100_000_000  # bytes of the header of a .safetensors file, as that library has it

# What NumPy, zipfile, json, h5py and zarr raise for files that are not as they should be.
UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class InputError(Exception):
    """What is wrong with a file or an option, in one line."""


@contextmanager
def reading(path):
    """Say which file could not be read, and why, in place of what the libraries that read it raise."""
    try:
        yield
    except UNREADABLE as error:
        why = (
            error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        )
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            why = "it is empty"
        raise InputError(f"{path} cannot be read: {why or type(error).__name__}") from error


# ---- forms of files: each has shape, dtype, chunks (along each axis, or None) and read(index) ----


class Mapped:
    """An array that lies in a file as it would in memory, where the file is mapped."""

    chunks = None

    def __init__(self, path, file, shape, dtype, offset, order="C"):
        self.shape, self.dtype = shape, dtype
        there, needed = os.fstat(file.fileno()).st_size - offset, math.prod(shape) * dtype.itemsize
        if there < needed:
            raise InputError(
                f"{path} is truncated: {max(there, 0)} of the {needed} bytes of {described(self)} are there"
            )
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._array = np.ndarray(shape, dtype, memory, offset, order=order)

    def read(self, index):
        part = self._array[index]
        if not part.flags.c_contiguous:
            part = part.copy()
            let_go(self._array)
            return part
        # a byte of each page: they come from the disk on the thread that reads, not on those that compute
        part.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max(initial=0)
        return part


class Streamed:
    """A member of a .npz, compressed or not: it is read once, from its beginning to its end."""

    chunks = None

    def __init__(self, path, file, shape, dtype, order):
        self.shape, self.dtype = shape, dtype
        if order == "F" and sum(n > 1 for n in shape) > 1:
            raise InputError(f"{path} is in Fortran order, which is not read from a .npz: save it as .npy")
        self._path, self._file, self._at = path, file, 0

    def read(self, index):
        sizes = [part.stop - part.start for part in index]
        begin = sum(part.start * math.prod(self.shape[k + 1 :]) for k, part in enumerate(index))
        cut = next((k for k, n in enumerate(sizes) if n != 1), len(sizes))
        if begin != self._at or sizes[cut + 1 :] != list(self.shape[cut + 1 :]):
            raise InputError(f"{self._path} can only be read from beginning to end: save it as .npy")
        part = np.empty(sizes, self.dtype)
        if self._file.readinto(part.reshape(-1).view(np.uint8)) != part.nbytes:
            raise InputError(f"{self._path} is truncated: it ends before {described(self)} do")
        self._at += part.size
        return part

    def close(self):
        self._file.close()


class Sliced:
    """A dataset of a library that reads slices of it: HDF5, zarr."""

    def __init__(self, dataset, dtype):
        self.shape, self.dtype, self._dataset = tuple(dataset.shape), dtype, dataset
        self.chunks = getattr(dataset, "chunks", None)

    def read(self, index):
        part = np.asarray(self._dataset[index])
        return part if part.dtype == self.dtype else part.view(self.dtype)


class Held:
    """An array that is in memory."""

    chunks = None

    def __init__(self, held):
        self.shape, self.dtype, self.held = held.shape, held.dtype, held

    def read(self, index):
        return self.held[index]


# ---- opening them ----


def _npy_header(path, file):
    """Return shape, order and dtype of a .npy, whose data begin where the file stands then."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise InputError(f"{path} holds named fields, which are not read")
    return shape, "F" if fortran else "C", dtype


def _open_npy(path, name, as_bfloat16):
    if name:
        raise InputError(f"{path} holds one array, which has no name, and none called {name}")
    with open(path, "rb") as file:
        shape, order, dtype = _npy_header(path, file)
        return Mapped(path, file, shape, real_dtype(dtype, path, as_bfloat16), file.tell(), order)


def _open_npz(path, name, as_bfloat16):
    with zipfile.ZipFile(path) as members, ExitStack() as on_error:
        name = _only(path, [member.removesuffix(".npy") for member in members.namelist()], name)
        file, path = on_error.enter_context(members.open(f"{name}.npy")), f"{path}:{name}"
        shape, order, dtype = _npy_header(path, file)
        opened = Streamed(path, file, shape, real_dtype(dtype, path, as_bfloat16), order)
        on_error.pop_all()  # the member stays open, and keeps the file open
        return opened


def _open_safetensors(path, name, as_bfloat16):
    """Eight bytes with the length of the header, the header as JSON, then the tensors."""
    with open(path, "rb") as file:
        start = file.read(8)
        length, size = int.from_bytes(start, "little"), os.fstat(file.fileno()).st_size
        if len(start) < 8 or length > min(size - 8, MOST_HEADER):
            raise InputError(
                f"{path} is no .safetensors file, or a truncated one: its header does not fit in"
            )
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        name = _only(path, header, name)
        tensor, path = header[name], f"{path}:{name}"
        if tensor["dtype"] not in SAFETENSORS:
            raise InputError(f"{path} holds {tensor['dtype']}, which is not read")
        stored = SAFETENSORS[tensor["dtype"]]
        dtype, shape = np.dtype(stored) if stored else bfloat16(path), tuple(map(int, tensor["shape"]))
        begin, end = map(int, tensor["data_offsets"])
        if min(shape, default=0) < 0 or begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
            raise InputError(
                f"{path} has a wrong header: shape {shape} does not take the bytes {begin} to {end}"
            )
        return Mapped(path, file, shape, real_dtype(dtype, path, as_bfloat16), 8 + length + begin)


SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": None, "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def _open_hdf5(path, name, as_bfloat16):
    h5py, names = library("h5py", path), []
    file = h5py.File(path, "r")
    file.visititems(lambda key, item: names.append(key) if isinstance(item, h5py.Dataset) else None)
    name = _only(path, names, name.strip("/"))
    return Sliced(file[name], real_dtype(file[name].dtype, f"{path}:{name}", as_bfloat16))


def _open_zarr(path, name, as_bfloat16):
    found = library("zarr", path).open(path, mode="r")
    if hasattr(found, "arrays"):
        found = found[name or _only(path, [key for key, _ in found.arrays()], name)]
    elif name:
        raise InputError(f"{path} is one array, which has no name, and holds none called {name}")
    return Sliced(found, real_dtype(found.dtype, path, as_bfloat16))


FORMS = {
    ".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors, ".zarr": _open_zarr,
    ".h5": _open_hdf5, ".hdf5": _open_hdf5, ".hdf": _open_hdf5,
}  # fmt: skip
TEXTS = (".txt", ".csv", ".tsv")


def _only(path, names, name):
    """Return the name that was asked for, or the only one that there is."""
    names = list(names)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if name and name not in names:
        raise InputError(f"{path} holds no array called {name}; it holds {shown or 'none'}")
    if not name and len(names) != 1:
        raise InputError(
            f"{path} holds {len(names)} arrays: say which, as in {path}:NAME ({shown or 'there is none'})"
        )
    return name or names[0]


def library(name, purpose):
    """Return an optional library, or say how it is installed."""
    try:
        return __import__(name)
    except ImportError:
        raise InputError(f'{purpose} needs the package {name}: pip install "xent-kernels[files]"') from None


def bfloat16(purpose):
    return np.dtype(library("ml_dtypes", f"bfloat16 ({purpose})").bfloat16)


def real_dtype(dtype, path, as_bfloat16=False):
    """Return the dtype of real numbers that are stored as this one."""
    # |V2 is what NumPy and HDF5 make of the bfloat16 of ml_dtypes
    if dtype == np.dtype("V2") or (as_bfloat16 and dtype.kind in "iu" and dtype.itemsize == 2):
        return bfloat16(path)
    if dtype.kind not in "iuf" and dtype.name != "bfloat16" or dtype.itemsize > 8:
        raise InputError(
            f"{path} holds {dtype}, which is not read: float64, float32, float16, bfloat16 and integers are"
        )
    return dtype


# ---- shards ----


class Joined:
    """One array, or shards of one that lie one after the other along the first axis.

    One of them is open at a time. A part that lies in several is put together, so that parts do
    not depend on how many shards there are.
    """

    held = None  # all of it, where it is in memory

    def __init__(self, files, name, shards):
        self.name, self._shards, self._open = name, shards, (None, None)
        files.callback(self.close)
        starts, first = [0], None
        for k, (path, _) in enumerate(shards):
            shard = self._of(k)
            first = first or shard
            alike = shard.shape[1:] == first.shape[1:] and shard.dtype == first.dtype
            if len(shards) > 1 and not (alike and shard.shape):
                raise InputError(
                    f"{path} holds {described(shard)}, and {shards[0][0]} holds {described(first)}: "
                    "shards differ in their first axis alone"
                )
            starts.append(starts[-1] + (shard.shape[0] if shard.shape else 1))
        self._starts = np.array(starts)
        self.dtype, self.chunks = first.dtype, first.chunks
        self.shape = (starts[-1], *first.shape[1:]) if first.shape else ()

    @property
    def several(self):
        return len(self._shards) > 1

    def _of(self, k):
        if self._open[0] != k:
            self.close()
            path, opened = self._shards[k]
            with reading(path):
                self._open = (k, opened())
        return self._open[1]

    def close(self):
        if hasattr(self._open[1], "close"):
            self._open[1].close()
        self._open = (None, None)

    def read(self, index):
        """Return the part that slices, one for each axis, take out of it."""
        begin, end = index[0].start, index[0].stop
        parts, k = [], int(np.searchsorted(self._starts, begin, side="right")) - 1
        while begin < end:
            start, stop = int(self._starts[k]), min(int(self._starts[k + 1]), end)
            if begin < stop:
                shard = self._of(k)
                with reading(self._shards[k][0]):
                    parts.append(shard.read((slice(begin - start, stop - start), *index[1:])))
            begin, k = stop, k + 1
        if not parts:
            return np.empty([part.stop - part.start for part in index], self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def place(self, position):
        """Return where a position, a tuple of indices, is found: the file, and there the position."""
        k = int(np.searchsorted(self._starts, position[0], side="right")) - 1
        return self._shards[k][0], (position[0] - int(self._starts[k]), *position[1:])


def let_go(part):
    """Give memory of the system's file cache, which a part is mapped from, back to the system."""
    base = part
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and part.size and hasattr(mmap, "MADV_DONTNEED"):
        begin = (
            part.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).__array_interface__["data"][0]
        )
        first, last = -(-begin // mmap.PAGESIZE), (begin + part.nbytes) // mmap.PAGESIZE
        if first < last:
            base.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def described(source):
    return f"{' x '.join(map(str, source.shape)) or 'one number'} {source.dtype.name}"


# ---- what a user names ----


def open_array(files, text, *, as_bfloat16=False, kind=np.int64):
    """Return the array that is named by FILE, FILE:NAME, a folder, a glob, or - for standard input.

    `files`, an ExitStack, closes what is opened. Numbers of text are of the dtype `kind`.
    """
    if text == "-":
        return _held(files, "standard input", _parse(sys.stdin.buffer, "standard input", kind))
    paths, name = _find(text)
    for path in paths:
        if path.endswith(TEXTS):
            if len(paths) > 1:
                raise InputError(f"{text}: shards of text are not read")
            with reading(path), open(path, "rb") as file:
                return _held(files, path, _parse(file, path, kind))
    return Joined(files, text, [(path, partial(_opener(path), path, name, as_bfloat16)) for path in paths])


def _held(files, name, held):
    joined = Joined(files, name, [(name, partial(Held, held))])
    joined.held = held
    return joined


def in_shape(files, source, shape):
    """Return numbers of a text in this shape, where there are as many; other arrays as they are."""
    if source.held is not None and source.held.ndim == 1 and source.held.size == math.prod(shape):
        return _held(files, source.name, source.held.reshape(shape))
    return source


def _opener(path):
    if not _is_array(path):
        what = f"files that end in {_suffix(path) or 'nothing'}"
        raise InputError(f"{path}: {what} are not read; {', '.join(FORMS)} are")
    return FORMS.get(_suffix(path), _open_zarr)


def _suffix(path):
    return os.path.splitext(path.rstrip("/"))[1].lower()


def _is_array(path):
    """Whether this is a file, or a folder of zarr, that has an array."""
    marks = (os.path.join(path, mark) for mark in ("zarr.json", ".zarray", ".zgroup"))
    return _suffix(path) in FORMS or any(map(os.path.exists, marks))


def _find(text):
    """Return the paths that are meant, and the name of the array in them."""
    for at in [len(text), *(match.start() for match in re.finditer(":", text))]:
        path, name = text[:at], text[at + 1 :]
        paths = [path] if os.path.exists(path) else sorted(glob.glob(path), key=_natural)
        if not paths:
            continue
        if paths == [path] and os.path.isdir(path) and not _is_array(path):
            inside = (os.path.join(path, entry) for entry in sorted(os.listdir(path), key=_natural))
            paths = list(filter(_is_array, inside))
            if not paths:
                raise InputError(f"{path} holds no file that is read: {', '.join(FORMS)} are")
        return paths, name
    raise InputError(f"{text}: there is no such file")


def _natural(path):
    """A key by which shard2 comes before shard10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path)]


def _parse(file, name, kind):
    """Return the numbers of a text, between which are spaces, commas or ends of lines; or of a .npy."""
    start = file.read(len(NPY))
    if start == NPY:
        with reading(name):
            return np.load(io.BytesIO(start + file.read()), allow_pickle=False)
    numbers = growing(np.dtype(kind).char)
    rest, convert = start, int if kind is np.int64 else float
    while True:
        block = file.read(TEXT_BLOCK)
        text = (rest + block).replace(b",", b" ")
        words = text.split()
        # the last word may go on in the next block
        rest = words.pop() if block and words and not text[-1:].isspace() else b""
        before = len(numbers)
        try:
            numbers.extend(map(convert, words))
        except (ValueError, OverflowError):
            word, what = words[len(numbers) - before][:20].decode(errors="replace"), "an integer of 64 bits"
            what = what if convert is int else "a number"
            hint = "" if len(numbers) else ": leave a line of names out"
            raise InputError(f"{name}: {word!r}, number {len(numbers)} of it, is not {what}{hint}") from None
        if not block:
            return np.array(numbers, kind)


NPY = b"\x93NUMPY"  # what a .npy begins with
