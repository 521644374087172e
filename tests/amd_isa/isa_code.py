"""Code objects of a HIP fat binary: extraction, loading into device memory, metadata."""
import ctypes
import struct

PT_LOAD, PT_NOTE, SHT_RELA, SHT_DYNSYM = 1, 4, 4, 11
R_AMDGPU_RELATIVE64 = 13
NOTE_METADATA = 32
MAGIC = b'__CLANG_OFFLOAD_BUNDLE__'


def unpack(data, i=0):
    """One MessagePack value at data[i]: (value, next i)."""
    tag = data[i]
    i += 1

    def sized(widths, first):
        width = widths[tag - first]
        return int.from_bytes(data[i:i + width], 'big'), i + width

    def text(count, at):
        return data[at:at + count].decode(), at + count

    def array(count, at):
        values = []
        for _ in range(count):
            value, at = unpack(data, at)
            values.append(value)
        return values, at

    def table(count, at):
        flat, at = array(2 * count, at)
        return dict(zip(flat[::2], flat[1::2])), at
    if tag < 0x80:
        return tag, i
    if tag < 0xc0:
        kind, count = ((table, tag & 15) if tag < 0x90 else (array, tag & 15) if tag < 0xa0
                       else (text, tag & 31))
        return kind(count, i)
    if tag in (0xc0, 0xc2, 0xc3):
        return {0xc0: None, 0xc2: False, 0xc3: True}[tag], i
    if 0xcc <= tag <= 0xcf:
        return sized((1, 2, 4, 8), 0xcc)
    if 0xd9 <= tag <= 0xdb:
        return text(*sized((1, 2, 4), 0xd9))
    if tag in (0xdc, 0xdd):
        return array(*sized((2, 4), 0xdc))
    if tag in (0xde, 0xdf):
        return table(*sized((2, 4), 0xde))
    if tag >= 0xe0:
        return tag - 256, i
    raise ValueError(f'metadata holds the tag {tag:#x}, which is not supported')


class CodeObject:
    """An ELF file of one architecture, loaded: base (the host's), words, kernels, symbols."""

    def __init__(self, elf, library):
        program_at, section_at = struct.unpack_from('<QQ', elf, 32)
        _, program_count, _, section_count = struct.unpack_from('<HHHH', elf, 54)
        heads = [struct.unpack_from('<IIQQQQQQ', elf, program_at + 56 * i)
                 for i in range(program_count)]
        sections = [struct.unpack_from('<IIQQQQIIQQ', elf, section_at + 64 * i)
                    for i in range(section_count)]
        loads = [h for h in heads if h[0] == PT_LOAD]
        size = max(h[3] + h[6] for h in loads)
        self.words = (size + 3) // 4
        self.base = library.isa_memory_take(self.words * 4)
        if not self.base:
            raise MemoryError(f'a code object of {size} bytes does not fit')
        ctypes.memset(self.base, 0, self.words * 4)
        for h in loads:
            ctypes.memmove(self.base + h[3], elf[h[2]:h[2] + h[5]], h[5])
        self.kernels = {}
        for h in heads:
            if h[0] == PT_NOTE:
                self.read_notes(elf, h[2], h[2] + h[5])
        self.symbols = {}
        for s in sections:
            if s[1] == SHT_DYNSYM:
                self.read_symbols(elf, s, sections[s[6]][4])
            elif s[1] == SHT_RELA:
                self.relocate(elf, s)

    def read_notes(self, elf, at, end):
        while at < end:
            name_size, size, kind = struct.unpack_from('<III', elf, at)
            body = at + 12 + (name_size + 3) // 4 * 4
            if kind == NOTE_METADATA:
                metadata, _ = unpack(elf[body:body + size])
                self.kernels = {k['.name']: k for k in metadata['amdhsa.kernels']}
            at = body + (size + 3) // 4 * 4

    def read_symbols(self, elf, section, strings):
        for at in range(section[4], section[4] + section[5], 24):
            name, _, _, _, value, _ = struct.unpack_from('<IBBHQQ', elf, at)
            end = elf.index(b'\0', strings + name)
            self.symbols[elf[strings + name:end].decode()] = value

    def relocate(self, elf, section):
        for at in range(section[4], section[4] + section[5], 24):
            offset, info, addend = struct.unpack_from('<QQq', elf, at)
            if info & 0xffffffff != R_AMDGPU_RELATIVE64:
                raise ValueError(f'a relocation of kind {info & 0xffffffff}, expected '
                                 f'{R_AMDGPU_RELATIVE64} alone')
            ctypes.c_uint64.from_address(self.base + offset).value = self.base + addend

    def at(self, offset, layout):
        return struct.unpack(layout, ctypes.string_at(self.base + offset, struct.calcsize(layout)))


def unbundle(binary, architecture):
    """The ELF file for `architecture` in the fat binary at address `binary`."""
    magic, count = struct.unpack('<24sQ', ctypes.string_at(binary, 32))
    if magic != MAGIC:
        raise ValueError('the fat binary is compressed or of another format')
    at, names = binary + 32, []
    for _ in range(count):
        offset, size, length = struct.unpack('<QQQ', ctypes.string_at(at, 24))
        name = ctypes.string_at(at + 24, length).decode()
        at += 24 + length
        names.append(name.split('--')[-1])
        if names[-1].split(':')[0] == architecture:
            return ctypes.string_at(binary + offset, size)
    raise ValueError(f'the module holds {", ".join(names)}, but not {architecture}')
