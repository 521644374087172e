"""Launches: prepares the inputs of a kernel from the code object's metadata, then runs it with
isa_machine.c. The replacement of libamdhip64 (isa_python.c) calls start() and launch().

  ROPEWALK_ISA_ARCH      the architecture: gfx942, gfx1100 ...
  ROPEWALK_ISA_EMULATOR  the emulator's checkout
  ROPEWALK_ISA_CACHE     the folder for instructions' forms [next to the library]
  ROPEWALK_ISA_REVERSE   1: waves and blocks in reverse order [0]
  ROPEWALK_ISA_LIMIT     maximum instructions of a wave between two barriers, else a hang [20 M]
  ROPEWALK_ISA_POISON    initial contents of registers and LDS [0xffc0beef, a NaN]
  ROPEWALK_ISA_FLUSH_F16 1: MFMA flushes subnormals of f16 to 0, as on gfx90a [0]
  ROPEWALK_ISA_COMPILER  compiler of instructions' forms [clang-19]
  ROPEWALK_ISA_STATS     a file to append a line to at exit: launches, instructions
  ROPEWALK_ISA_TRACE     set: reports also where Python raised an error
"""
import ctypes
import functools
import mmap
import os
import shutil
import struct
import subprocess
import traceback

import isa_code
import isa_forms

BIAS = 0x100000000000      # as in isa_machine.h
LDS_HOST = 0x0f0000000000
LDS_BYTES = 65536
NO_ADDRESS = (1 << 64) - 1
RAN, NO_FORM, HANG, LOST, ACCESS, LDS_OVERRUN = range(6)


class Entry(ctypes.Structure):
    _fields_ = [('fn', ctypes.c_void_p), ('flags', ctypes.c_uint8), ('bytes', ctypes.c_uint8),
                ('buffers', ctypes.c_uint8 * isa_forms.MOST_BUFFERS)]


COMPILE = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.POINTER(Entry))


class Launch(ctypes.Structure):
    _fields_ = [('base', ctypes.c_uint64), ('words', ctypes.c_uint64),
                ('table', ctypes.POINTER(Entry)), ('compile', COMPILE), ('start', ctypes.c_uint64),
                ('executed', ctypes.c_uint64), ('limit', ctypes.c_uint64),
                ('failed_pc', ctypes.c_uint64), ('failed_address', ctypes.c_uint64),
                ('failed_exec', ctypes.c_uint64), ('wave', ctypes.c_uint32),
                ('vgprs', ctypes.c_uint32), ('user_count', ctypes.c_uint32),
                ('user', ctypes.c_uint32 * 32), ('rsrc2', ctypes.c_uint32),
                ('flush', ctypes.c_uint32), ('ids_in_ttmp', ctypes.c_uint32),
                ('lds_bytes', ctypes.c_uint32), ('scratch_bytes', ctypes.c_uint32),
                ('poison', ctypes.c_uint32), ('block', ctypes.c_uint32 * 3),
                ('grid', ctypes.c_uint32 * 3), ('reverse', ctypes.c_uint32),
                ('failure', ctypes.c_uint32), ('failed_block', ctypes.c_uint32 * 3),
                ('failed_wave', ctypes.c_uint32)]


def family_of(architecture):
    for prefix, family in (('gfx9', 'cdna'), ('gfx11', 'rdna3'), ('gfx12', 'rdna4')):
        if architecture.startswith(prefix):
            return family
    raise ValueError(f'ROPEWALK_ISA_ARCH is "{architecture}", expected one of gfx9, gfx11 or '
                     'gfx12: the emulator has no tables of others')


class Machine:
    """The device, for the lifetime of the process."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.isa_memory_take.restype = ctypes.c_void_p
        self.library.isa_memory_take.argtypes = [ctypes.c_size_t]
        self.library.isa_memory_give.argtypes = [ctypes.c_void_p]
        self.library.isa_memory_describe.argtypes = [ctypes.c_uint64, ctypes.c_char_p,
                                                     ctypes.c_size_t]
        self.architecture = os.environ['ROPEWALK_ISA_ARCH']
        self.family = family_of(self.architecture)
        cache = os.environ.get('ROPEWALK_ISA_CACHE') or os.path.join(os.path.dirname(path), 'forms')
        self.forms = isa_forms.Forms(self.family, self.architecture, cache, LDS_HOST + BIAS)
        self.poison = int(os.environ.get('ROPEWALK_ISA_POISON', '0xffc0beef'), 0)
        self.limit = int(os.environ.get('ROPEWALK_ISA_LIMIT', '20000000'))
        self.reverse = int(os.environ.get('ROPEWALK_ISA_REVERSE', '0'))
        self.why = ''
        self.compile = COMPILE(self.fill)

    def fill(self, pc, entry):
        try:
            self.forms.fill(pc - BIAS, entry.contents)
        except Exception as error:  # of the emulator: isa_run() ends, and launch() reports it
            self.why = ''.join(traceback.format_exception_only(error)).strip()

    @functools.cache
    def code(self, binary):
        code = isa_code.CodeObject(isa_code.unbundle(binary, self.architecture), self.library)
        code.table = (Entry * code.words)()
        return code

    def launch(self, binary, name, grid, block, arguments, shared):
        code = self.code(binary)
        meta = code.kernels[name]
        # The kernel arguments, followed by the dispatch packet at the end of the segment.
        size = (meta['.kernarg_segment_size'] + 63) // 64 * 64
        place = self.library.isa_memory_take(size + 64)
        if not place:
            raise MemoryError('the arguments of a kernel do not fit')
        try:
            ctypes.memset(place, 0xee, size + 64)
            fill_arguments(place, meta, grid, block, arguments)
            l = self.lay_out(code, name, grid, block, shared, place, size)
            self.library.isa_run(ctypes.byref(l))
            self.library.isa_count(ctypes.byref(l))
            if l.failure != RAN:
                raise RuntimeError(self.report(code, name, grid, l))
            why = ctypes.create_string_buffer(256)
            if not self.library.isa_memory_intact(why, ctypes.c_size_t(len(why))):
                raise RuntimeError(f'{demangled(name)} on {self.architecture}, grid {grid}, block '
                                   f'{block}: {why.value.decode()}')
        finally:
            self.library.isa_memory_give(place)

    def lay_out(self, code, name, grid, block, shared, kernarg, kernarg_size):
        at = code.symbols[name + '.kd']
        lds, private, _, _, entry = code.at(at, '<IIIIq')
        _, rsrc1, rsrc2, properties, preload = code.at(at + 44, '<IIIHH')
        if preload:
            raise ValueError(f'{name} requires preloaded arguments, which are not supported')
        if self.family != 'cdna' and not properties >> 10 & 1:
            raise ValueError(f'{name} has waves of 64, expected 32')
        if private and properties & 1:
            raise ValueError(f'{demangled(name)} on {self.architecture} has {private} bytes of '
                             'scratch, expected none: it is addressed by a buffer of a kind that '
                             'the emulator does not support')
        if lds + shared > LDS_BYTES:
            raise ValueError(f'{name} requires {lds + shared} bytes of LDS, expected {LDS_BYTES} '
                             'at most')
        packet, descriptor = kernarg + kernarg_size, code.base + at + BIAS
        ctypes.memmove(packet, struct.pack(
            '<HHHHHHIIIIIQQQQ', 2, 3, *block, 0, *(g * b for g, b in zip(grid, block)), private,
            lds + shared, descriptor, kernarg + BIAS, 0, 0), 64)
        user = user_registers(properties, rsrc2 >> 1 & 31, self.poison, packet + BIAS,
                              kernarg + BIAS, private)
        l = Launch(base=code.base + BIAS, words=code.words, table=code.table, compile=self.compile,
                   start=descriptor + entry, limit=self.limit, poison=self.poison,
                   wave=64 if self.family == 'cdna' else 32,
                   vgprs=min(256, ((rsrc1 & 63) + 1) * 8), user_count=len(user), rsrc2=rsrc2,
                   flush=(rsrc1 >> 16 & 3) == 0, ids_in_ttmp=self.family == 'rdna4',
                   lds_bytes=lds + shared, scratch_bytes=private, reverse=self.reverse)
        l.user[:len(user)], l.block[:], l.grid[:] = user, block, grid
        return l

    def report(self, code, name, grid, l):
        where = (f'{demangled(name)} on {self.architecture}, block {tuple(l.failed_block)} of '
                 f'{grid}')
        if l.failure == LDS_OVERRUN:
            return (f'{where}: it wrote to byte {l.failed_address} of LDS, of which it has '
                    f'{l.lds_bytes} bytes')
        where += (f', wave {l.failed_wave}, lanes {l.failed_exec:#x}, at '
                  f'+{l.failed_pc - l.base:#x}')
        if l.failure == LOST:
            return f'{where}: the program counter is not in the code'
        where += f' {self.forms.text(l.failed_pc - BIAS)}'
        if l.failure == NO_FORM:
            return f'{where}: the emulator has no form of it: {self.why}'
        if l.failure == HANG:
            return (f'{where}: a hang, {l.limit} instructions without a barrier; of the wave, the '
                    'lanes above run')
        return f'{where}: an access to {self.describe(l)}'

    def describe(self, l):
        """The location of an access."""
        lds = l.failed_address - (LDS_HOST + BIAS)
        if l.failed_address == NO_ADDRESS:
            return 'an address that no memory can have'
        if 0 <= lds < LDS_BYTES + mmap.PAGESIZE:
            return f'byte {lds} of LDS, of which it has {l.lds_bytes} bytes'
        text = ctypes.create_string_buffer(128)
        self.library.isa_memory_describe(l.failed_address, text, len(text))
        return f'{l.failed_address:#x}, {text.value.decode()}'


def demangled(name):
    """A kernel's name without its arguments, if c++filt is installed."""
    if shutil.which('c++filt'):
        name = subprocess.run(['c++filt', name], capture_output=True, text=True).stdout.strip()
    return name.removeprefix('void ').rsplit('(', 1)[0] if name.endswith(')') else name


def fill_arguments(place, meta, grid, block, arguments):
    given = 0
    for argument in meta.get('.args', []):
        kind, size, to = argument['.value_kind'], argument['.size'], place + argument['.offset']
        if kind.startswith('hidden'):
            axis = 'xyz'.find(kind[-1])
            value = (grid[axis] if kind.startswith('hidden_block_count') else
                     block[axis] if kind.startswith('hidden_group_size') else
                     3 if kind == 'hidden_grid_dims' else 0)
            ctypes.memmove(to, value.to_bytes(size, 'little'), size)
        else:
            ctypes.memmove(to, ctypes.c_uint64.from_address(arguments + 8 * given).value, size)
            given += 1


def user_registers(properties, count, poison, packet, kernarg, private):
    """The scalar registers that the dispatch sets, in the order of the descriptor's bits."""
    user = [poison] * 4 if properties & 1 else []
    for bit, value in ((2, packet), (4, 0), (8, kernarg), (16, 0), (32, 0)):
        if properties & bit:
            user += [value & 0xffffffff, value >> 32]
    if properties & 64:
        user.append(private)
    if len(user) > count:
        raise ValueError(f'a kernel has {count} user registers, expected {len(user)}')
    return user + [poison] * (count - len(user))


machine = None


def start(path):
    global machine
    machine = Machine(path)


def launch(*arguments):
    machine.launch(*arguments)
