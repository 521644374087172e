"""The compiled form of each instruction: asked of the emulator once, then kept in a file.

A form serves every instruction that differs in fields which it reads as it runs (registers,
offsets, literals). A record is (name of the encoding, bytes, fixed bits, mask of the fixed bits,
buffers that it takes, object file). The file is appended to, under a lock, by all processes that
miss one; it lies in a folder whose name is the digest of all that a form depends on, so that no
stale one is read.
"""
import ctypes
import fcntl
import hashlib
import mmap
import os
import pathlib
import pickle
import shutil
import sys

import isa_emulator

COMPILER = os.environ.get('ROPEWALK_ISA_COMPILER', 'clang-19')
BARRIER, SKIP = 1, 2
MOST_BUFFERS = 6
RECORDS = '1'  # the version of what a record holds

# What only orders or empties caches, of which there are none: (mask, bits) of a first word, bytes.
ORDERING = {
    'rdna3': [(0xffffffff, 0xe0b00000, 8), (0xffffffff, 0xe0ac0000, 8)],  # buffer_gl1_inv, gl0_inv
    'rdna4': [(0xffffc000, 0xee0ac000, 12), (0xffffc000, 0xee0b0000, 12),  # global_inv, global_wb
              (0xffffc000, 0xee13c000, 12)],                               # global_wbinv
    'cdna': [(0xfffc0000, 0xe0a40000, 8), (0xfffc0000, 0xe0a00000, 8),     # buffer_inv, buffer_wbl2
             (0xfffc0000, 0xe0fc0000, 8), (0xfffc0000, 0xe0f80000, 8)],    # gfx90a's: invl2, vol
}
BARRIERS = ('S_BARRIER', 'S_BARRIER_WAIT')  # S_BARRIER_SIGNAL does not wait
# v_mfma_f32_16x16x16bf16_1k, which CDNA3's tables number otherwise: (of gfx90a, of gfx942).
GFX90A_BF16 = (0xd3e7, 0xd3e1)


def this_machine(sources):
    """The digest of all that a form depends on: they are compiled for the processor at hand."""
    compiler = shutil.which(COMPILER)
    if not compiler:
        raise isa_emulator.Unfit(f'{COMPILER}, which compiles the forms, is not there')
    status = os.stat(compiler)
    cpu = [line for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines()
           if line.startswith(('model name', 'flags'))][:2]
    parts = [RECORDS, sources, os.path.realpath(compiler), str(status.st_size),
             str(status.st_mtime_ns), *cpu, pathlib.Path(isa_emulator.__file__).read_text()]
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]


class Form:
    """A record, and the address of its code where it is loaded."""

    def __init__(self, record):
        self.record = record
        self.name, self.size, self.base, self.mask, self.buffers, self.elf = record
        self.address, self.memory = 0, None

    def load(self):
        if self.address:
            return
        from tinygrad.runtime.ops_cpu import CPUProgram
        from tinygrad.runtime.support.elf import jit_loader
        room = len(self.elf) + mmap.PAGESIZE
        self.memory = mmap.mmap(-1, room, mmap.MAP_ANON | mmap.MAP_PRIVATE,
                                mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        code = bytes(jit_loader(self.elf, base=address,
                                link_libs=[CPUProgram.libm, CPUProgram.rt_lib]))
        if len(code) > room:
            raise ValueError(f'the form of {self.name} grew to {len(code)} bytes as it was linked')
        self.memory.write(code)
        self.address = address


class Forms:
    """The forms of an instruction set ('rdna3', 'rdna4', 'cdna') for one architecture of it."""

    def __init__(self, family, architecture, cache, lds_address):
        self.family, self.architecture, self.lds_address = family, architecture, lds_address
        self.root, sources = isa_emulator.check()
        folder = pathlib.Path(cache) / this_machine(sources)
        folder.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(self.root))
        sys.pycache_prefix, sys.dont_write_bytecode = str(folder / 'pycache'), False
        os.environ.update(CC=COMPILER, CPU='1', CACHELEVEL='0')
        from tinygrad.renderer.amd import decode_inst
        self.decode_inst = decode_inst
        self.flush_f16 = os.environ.get('ROPEWALK_ISA_FLUSH_F16') == '1'
        self.path = folder / f'{family}{"-flush" * self.flush_f16}.forms'
        self.known, self.emulator, self.was_read = {}, None, 0
        self.read()

    def read(self):
        """Takes what the file holds behind what was read of it: others append to it, too."""
        if not self.path.exists():
            return
        with open(self.path, 'rb') as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            end = os.fstat(file.fileno()).st_size
            file.seek(self.was_read)
            while file.tell() < end:
                self.remember(Form(pickle.load(file)))
            self.was_read = end

    def append(self, record):
        with open(self.path, 'ab') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(pickle.dumps(record))

    def remember(self, form):
        self.known.setdefault((form.name, form.size), []).append(form)

    def data(self, place):
        """The bytes of the instruction at `place`, in the tables' numbering."""
        data = ctypes.string_at(place, 16)
        first = int.from_bytes(data[:4], 'little')
        if self.architecture == 'gfx90a' and first >> 16 == GFX90A_BF16[0]:
            data = (first & 0xffff | GFX90A_BF16[1] << 16).to_bytes(4, 'little') + data[4:]
        return data

    def decode(self, place):
        return self.decode_inst(self.data(place), self.family)

    def text(self, place):
        """The instruction at `place`, for a report."""
        try:
            return repr(self.decode(place))
        except Exception:  # what does not decode is told by its first word
            return f'{int.from_bytes(ctypes.string_at(place, 4), "little"):#010x}'

    def ordering(self, place):
        first = int.from_bytes(ctypes.string_at(place, 4), 'little')
        for mask, bits, size in ORDERING[self.family]:
            if first & mask == bits:
                return size
        return 0

    def fill(self, place, entry):
        """Fills the run loop's entry of the instruction at the host's address `place`."""
        size = self.ordering(place)
        if size:
            entry.flags, entry.bytes = SKIP, size
            return
        inst = self.decode(place)
        word = int.from_bytes(self.data(place)[:inst.size()], 'little')
        name = type(inst).__name__
        form = self.find(name, inst.size(), word)
        if form is None:
            self.read()
            form = self.find(name, inst.size(), word) or self.compile(inst, self.data(place), word)
        form.load()
        for i, buffer in enumerate(form.buffers):
            entry.buffers[i] = buffer
        op = getattr(inst, 'op', None)
        entry.flags = BARRIER if op is not None and op.name in BARRIERS else 0
        entry.fn = form.address

    def find(self, name, size, word):
        for form in self.known.get((name, size), ()):
            if word & form.mask == form.base:
                return form
        return None

    def compile(self, inst, data, word):
        if self.emulator is None:
            self.emulator = isa_emulator.emulator(self.root, self.lds_address, self.flush_f16)
        program, _ = self.emulator._get_runner(data[:inst.size() + 4], self.family)
        for kind, base, mask, size, _ in self.emulator._canonical_runner_cache:
            if kind is type(inst) and size == inst.size() and word & mask == base:
                break
        buffers = tuple(program.arg.globals)
        if len(buffers) > MOST_BUFFERS:
            raise ValueError(f'the form of {inst!r} takes {len(buffers)} buffers')
        record = (kind.__name__, size, base, mask, buffers, bytes(program.to_elf().lib))
        self.append(record)
        self.read()  # and what others have appended
        return self.find(kind.__name__, size, word)
