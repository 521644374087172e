"""The external emulator of AMD's instruction sets: its location, the check of its version, and the
patches that correct its errors when it is loaded.

It is tinygrad's (MIT), test/mockgpu/amd/emu.py with pcode.py, in the checkout that
ROPEWALK_ISA_EMULATOR names. None of its code is copied here. Its sources must be those of
KNOWN_COMMIT: the patches below depend on its internals, and the emulator is not used unless each of
them finds the code that it patches. A patch is either an edit, a short piece of text that occurs
once and its replacement, or a function here that replaces one of the emulator's.
"""
import functools
import hashlib
import importlib.util
import os
import pathlib
import re
import sys
import types

KNOWN_COMMIT = 'a9069c177a9da9cca18593edf55acd2e6073cca6'
KNOWN_SOURCES = '0db56cd83c917745d0956d474f55078f7d42158cc60d9cee8003f064af63ac0e'
REPOSITORY = 'https://github.com/tinygrad/tinygrad'
GET_IT = ('git init -q build/tinygrad && git -C build/tinygrad fetch -q --depth 1 '
          f'{REPOSITORY} {KNOWN_COMMIT} && git -C build/tinygrad checkout -q FETCH_HEAD && '
          'export ROPEWALK_ISA_EMULATOR=$PWD/build/tinygrad')

# Layout of the run loop that the patches use: see isa_machine.h.
SGPRS = 260                   # then the hardware registers
VMEM_BYTES, LDS_BYTES = 6, 7  # arguments of an instruction's form: memory and LDS again, by bytes
SHARED_BASE = 235             # SRC_SHARED_BASE; the limits and the private base follow
SHARED_APERTURE = 0x00010000  # the upper half of a flat address in LDS


class Unfit(Exception):
    """The emulator is not the supported version."""


class Absent(Unfit):
    """There is no emulator."""


# ---- the checkout ----

def folder():
    """The checkout, or Absent."""
    path = os.environ.get('ROPEWALK_ISA_EMULATOR', '')
    if not path:
        raise Absent('ROPEWALK_ISA_EMULATOR is not set, expected the folder of a checkout of '
                     f'{REPOSITORY} at {KNOWN_COMMIT[:10]}')
    root = pathlib.Path(path)
    if not (root / 'test/mockgpu/amd/emu.py').is_file():
        raise Absent(f'ROPEWALK_ISA_EMULATOR is "{path}", where no test/mockgpu/amd/emu.py is')
    return root


def digest(root):
    """The digest of all sources that the form of an instruction depends on."""
    files = sorted([*root.glob('tinygrad/**/*.py'), *root.glob('test/mockgpu/amd/*.py'),
                    root / 'test/amd/helpers.py'])
    all_of_it = hashlib.sha256()
    for path in files:
        all_of_it.update(str(path.relative_to(root)).encode() + b'\0' + path.read_bytes())
    return all_of_it.hexdigest()


def check():
    """The checkout and its digest; raises Unfit unless it is the supported version."""
    root = folder()
    sources = digest(root)
    if sources != KNOWN_SOURCES:
        raise Unfit(f'ROPEWALK_ISA_EMULATOR is "{root}", whose sources have the digest '
                    f'{sources[:16]}, expected those of commit {KNOWN_COMMIT[:10]}, '
                    f'{KNOWN_SOURCES[:16]}: the patches of tests/amd_isa require these')
    return root, sources


# ---- loading with edits ----

def load(root, name, edits):
    """Module `name` of the checkout, with each (text, replacement) of `edits` made."""
    path = root / (name.replace('.', '/') + '.py')
    text = path.read_text()
    for old, new in edits:
        if text.count(old) != 1:
            raise Unfit(f'a patch of {path} finds "{old}" {text.count(old)} times, expected once')
        text = text.replace(old, new)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    module.__spec__ = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module
    exec(compile(text, str(path), 'exec'), module.__dict__)
    return module


def replace(owner, name, function):
    if not callable(getattr(owner, name, None)):
        raise Unfit(f'a patch replaces {owner.__name__}.{name}, which does not exist')
    setattr(owner, name, function)


# ---- patches: memory ----
# Memory instructions access exactly the bytes that they name, at any alignment, and none for a lane
# that is masked off. Words use the emulator's own arguments 2 (memory) and 3 (LDS); unaligned
# accesses use arguments 6 and 7, the same memory as bytes.

def make_bytes_of(api):
    memory = api.UOp.param(VMEM_BYTES, api.dtypes.uint8, (1 << 48,))
    lds = api.UOp.param(LDS_BYTES, api.dtypes.uint8, (65536,))

    def bytes_of(mem):
        return mem if mem.dtype == api.dtypes.uint8 else {2: memory, 3: lds}[mem.arg.slot]
    return bytes_of


def make_store(api):
    bytes_of = make_bytes_of(api)
    dtypes, constant = api.dtypes, api.UOp.const

    def store(mem, addr, val, active, addr_bits=32, data_bits=32):
        at = addr.dtype
        if data_bits == 64:
            low, high = api.split64(val)
            return (store(mem, addr, low, active) +
                    store(mem, addr + constant(4, at), high, active))
        bits = api.to_u32(val)

        def byte(n, gate):
            place = bytes_of(mem).index((addr + constant(n, at)).valid(gate))
            part = bits if n == 0 else bits >> constant(8 * n, dtypes.uint32)
            return place.store((part & constant(255, dtypes.uint32)).cast(dtypes.uint8))
        if data_bits < 32:
            return [byte(n, active) for n in range(data_bits // 8)]
        aligned = (addr & constant(3, at)).eq(constant(0, at))
        word = mem.index((addr >> constant(2, at)).valid(active & aligned)).store(bits)
        return [word] + [byte(n, active & aligned.logical_not()) for n in range(4)]
    return store


def make_load(api):
    bytes_of = make_bytes_of(api)
    dtypes, constant = api.dtypes, api.UOp.const

    def load_bits(mem, addr, size, active):
        at = addr.dtype

        def gather(count, gate):
            value = constant(0, dtypes.uint32)
            for n in range(count):
                index = addr + constant(n, at)
                byte = bytes_of(mem).index(index if gate is None else index.valid(gate)).load()
                value = value | (byte.cast(dtypes.uint32) << constant(8 * n, dtypes.uint32))
            return value
        if size == 8:
            high = load_bits(mem, addr + constant(4, at), 4, active).cast(dtypes.uint64)
            return load_bits(mem, addr, 4, active).cast(dtypes.uint64) | (
                high << constant(32, dtypes.uint64))
        if size < 4 or mem.dtype == dtypes.uint8:
            return gather(size, active)
        aligned = (addr & constant(3, at)).eq(constant(0, at))
        every = aligned if active is None else active & aligned
        other = aligned.logical_not() if active is None else active & aligned.logical_not()
        word = mem.index((addr >> constant(2, at)).valid(every)).load()
        return aligned.where(word, gather(4, other))

    def handle_load(self, addr, dt):
        mem = self.vars['_vmem'] if '_vmem' in self.vars else self.vars['_lds']
        return api.cast_to(load_bits(mem, addr, dt.itemsize, self.vars.get('_active')), dt)
    return handle_load


# ---- patches: addresses and operands ----

def make_addresses(api):
    dtypes, constant = api.dtypes, api.UOp.const

    def aperture(register, low, inline):
        """64-bit SRC_SHARED_BASE and the three after it are upper halves of addresses."""
        special = (register >= constant(SHARED_BASE, dtypes.uint32)) & (
            register <= constant(SHARED_BASE + 3, dtypes.uint32))
        return special.where(low.cast(dtypes.uint64) << constant(32, dtypes.uint64), inline)

    def flat_address(inst, address):
        """The memory address of a flat address; those of the shared aperture are in LDS."""
        if type(inst).__name__ not in ('FLAT', 'VFLAT'):
            return address
        high = address >> constant(32, dtypes.uint64)
        place = constant(api.lds_address, dtypes.uint64) + (
            address & constant(0xffffffff, dtypes.uint64))
        return high.eq(constant(SHARED_APERTURE, dtypes.uint64)).where(place, address)

    def wmma_c(ctx, source, register, lane):
        """A word of WMMA's C: from registers, or a constant for all lanes."""
        first = constant(256, dtypes.uint32)
        in_registers = source >= first
        vector = ctx.rvgpr_dyn(in_registers.where(source - first, constant(0, dtypes.uint32)) +
                               constant(register, dtypes.uint32), lane)
        scalar = ctx.rsgpr_dyn(in_registers.where(constant(128, dtypes.uint32), source))
        return in_registers.where(vector, scalar)
    def mfma_f16(sign, exponent, mantissa, normal):
        """The bits of an f16 operand of MFMA as f32, including infinities, NaN and, unless they
        are flushed, subnormals."""
        def word(value):
            return constant(value, dtypes.uint32)
        sign = sign << word(31)
        special = sign | word(0x7f800000) | (mantissa << word(13))
        small = mantissa.cast(dtypes.int32).cast(dtypes.float32).bitcast(dtypes.uint32)
        small = mantissa.eq(word(0)).where(word(0), small - word(24 << 23)) | sign
        if api.flush_f16:
            small = word(0)
        return exponent.eq(word(31)).where(special, exponent.eq(word(0)).where(small, normal))
    def names_halves(inst):
        """Whether registers from 128 on, of 16-bit operands, are the upper halves of others."""
        return 'cdna' not in type(inst).__module__
    return {'_patch_aperture': aperture, '_patch_flat_address': flat_address,
            '_patch_wmma_c': wmma_c, '_patch_mfma_f16': mfma_f16,
            '_patch_names_halves': names_halves}


def returns_old_value(inst):
    """Whether an atomic returns the old value: glc of RDNA3, sc0 of CDNA3, bit 0 of th of RDNA4."""
    for field in ('glc', 'sc0', 'th'):
        if hasattr(type(inst), field):
            return int(getattr(inst, field)) & 1
    return 0


# ---- patches: lanes ----
# The emulator's parser ignores the condition of a write to a register of another lane, so that
# masked lanes are written, too, and the modulo of a lane's number.

def make_mem_op(api, original):
    dtypes, constant = api.dtypes, api.UOp.const

    def word(value):
        return constant(value, dtypes.uint32)

    def bpermute(inst, ctx):
        """DS_BPERMUTE_B32: data0 of the lane that the address names, modulo the wave size."""
        exec_mask, kind, lanes = ctx.rexec(), type(inst), ctx.wave_size
        address, data, result = (ctx.inst_field(getattr(kind, name))
                                 for name in ('addr', 'data0', 'vdst'))
        offset = ctx.inst_field(kind.offset0) | (ctx.inst_field(kind.offset1) << word(8))
        found, stores = [], []
        for lane in range(lanes):
            place = ctx.rvgpr_dyn(address, constant(lane, dtypes.int)) + offset
            source = (place >> word(2)) & word(lanes - 1)
            found.append(api.lane_active(exec_mask, source).where(ctx.rvgpr_dyn(data, source),
                                                                  word(0)))
        for lane in range(lanes):
            stores.append(ctx.wvgpr_dyn(result, constant(lane, dtypes.int), found[lane], exec_mask))
        return api.UOp.sink(*stores, *ctx.inc_pc())

    def compile_mem_op(inst, ctx):
        if inst.op.name == 'DS_BPERMUTE_B32':
            return bpermute(inst, ctx)
        if 'PERMUTE' in inst.op.name or 'SWIZZLE' in inst.op.name:
            raise Unfit(f'{inst.op.name} writes masked lanes in the emulator, and has no patch')
        return original(inst, ctx)
    return compile_mem_op


def make_lane_op(original):
    def compile_lane_op(self, op, inst):
        if 'PERMLANE16' in op.name or 'PERMLANEX16' in op.name:
            raise Unfit(f'{op.name} writes masked lanes in the emulator, and has no patch')
        return original(self, op, inst)
    return compile_lane_op


# ---- patches: the manual's text ----

def div_scale(_, dtype):
    """V_DIV_SCALE: the manual's text compares with DENORM to test whether a number is subnormal. A
    quotient at the limit is treated as subnormal: it is exact in both cases."""
    few, least, far, by, big = {'f32': (23, 126, 96, 64, 253),
                                'f64': (53, 1022, 768, 128, 2045)}[dtype]
    apart = f'exponent(S2.{dtype}) - exponent(S1.{dtype})'
    subnormal = f'({apart} <= -{least})'

    def only(which, exponent):
        return (f'VCC.u64[laneId] = 1;\nif S0.{dtype} == {which}.{dtype} then\n'
                f'D0.{dtype} = ldexp(S0.{dtype}, {exponent})\nelse\nD0.{dtype} = S0.{dtype}\nendif')
    return '\n'.join([
        'VCC.u64[laneId] = 0;',
        f'if ((S2.{dtype} == 0.0) || (S1.{dtype} == 0.0)) then', f'D0.{dtype} = NAN.{dtype}',
        f'elsif {apart} >= {far} then', only('S1', by),
        f'elsif isDENORM(S1.{dtype}) then', f'D0.{dtype} = ldexp(S0.{dtype}, {by})',
        f'elsif ((exponent(S1.{dtype}) >= {big}) && {subnormal}) then', only('S1', -by),
        f'elsif exponent(S1.{dtype}) >= {big} then', f'D0.{dtype} = ldexp(S0.{dtype}, -{by})',
        f'elsif {subnormal} then', only('S2', by),
        f'elsif exponent(S2.{dtype}) <= {few} then', f'D0.{dtype} = ldexp(S0.{dtype}, {by})',
        'else', f'D0.{dtype} = S0.{dtype}', 'endif'])


def div_fmas():
    """The replacement of the scaled branch of V_DIV_FMAS_F32: it rounds once."""
    def scaled(exponent):
        return (f"32'F(2.0 ** {exponent} * fma(64'F(S0.f32), 64'F(S1.f32), 64'F(S2.f32)))")
    return ('D0.f32 = 2.0F ** 32 * fma(S0.f32, S1.f32, S2.f32)',
            f'D0.f32 = (exponent(S2.f32) > 127) ? {scaled(64)} : {scaled(-64)}')


def make_get_pcode(original):
    @functools.cache
    def get_pcode(op):
        edits, text = [], original(op)
        if re.search(r'ATOMIC_CMPSWAP_(B64|X2)$', op.name): # 128 bits of data
            edits = [(r'DATA\[63 : 0\]\.u64', 'DATA.u64'), (r'DATA\[127 : 64\]\.u64', 'DATA2.u64')]
        if type(op).__name__ == 'VFLATOp': # its address is computed as for the others
            edits += [(r'addr = CalcFlatAddr\(v_addr.b64, flat_scratch.b64\);\n', ''),
                      (r'MEM\[addr', 'MEM[ADDR')]
        for old, new in edits:
            text, count = re.subn(old, new, text)
            if count == 0:
                raise Unfit(f'a patch of {op.name} does not find "{old}" in its text')
        return text
    return get_pcode


# ---- the patched emulator ----

PCODE_EDITS = [ # a quotient far below the smallest subnormal rounds to 0
    ("'UNDERFLOW_F32': return _const(dtypes.uint32, 1)",
     "'UNDERFLOW_F32': return _const(dtypes.uint32, 0)"),
    ("'UNDERFLOW_F64': return _const(dtypes.uint64, 1)",
     "'UNDERFLOW_F64': return _const(dtypes.uint64, 0)"),
]

EMU_EDITS = [
    ('if is_lds or is_atomic:', 'if False: # by what replaces _mem_store'),
    ("'_lds': mem, 'laneId': lane,",
     "'_lds': mem, 'laneId': lane, '_active': _lane_active(exec_mask, lane),"),
    # A store consists of several, by words and by bytes: one loop over the lanes contains all.
    ('ended.extend(s.end(lane) for s in make_stores(dest, lane_assigns[i][1], lane, active, True))',
     'ended.append(UOp.group(*make_stores(dest, lane_assigns[i][1], lane, active, True))'
     '.end(lane))'),
    # Compare-and-swap of 64 bits has two registers for each operand.
    ('if data_bits_mem == 64 else ctx.rvgpr_dyn(vdata_reg, lane)',
     'if data_bits_mem >= 64 else ctx.rvgpr_dyn(vdata_reg, lane)'),
    ("return {'ADDR': addr, 'DATA': atomic_data, '_vmem': mem,",
     "return {'ADDR': addr, 'DATA': atomic_data, '_vmem': mem, 'DATA2': _u64("
     "ctx.rvgpr_dyn(vdata_reg + _c(2), lane), ctx.rvgpr_dyn(vdata_reg + _c(3), lane)),"),
    # Registers from 128 on were the upper halves of others on CDNA, too.
    ("write_hi_half = bits['d'] == 16 and",
     "write_hi_half = _patch_names_halves(inst) and bits['d'] == 16 and"),
    ("    vsrc1_hi = bits['s0'] == 16 and",
     "    vsrc1_hi = _patch_names_halves(inst) and bits['s0'] == 16 and"),
    ("if bits['s0'] == 16:  # src0 >= 384",
     "if _patch_names_halves(inst) and bits['s0'] == 16:  # src0 >= 384"),
    ("if bits['s0'] == 16:\n      vsrc1_hi",
     "if _patch_names_halves(inst) and bits['s0'] == 16:\n      vsrc1_hi"),
    # Hardware registers overlapped the constants.
    ('_c(SGPR_COUNT - 16) + hw_reg_id', '_c(SGPR_COUNT) + hw_reg_id'),
    ('scalar_val = (off < _c(128)).where(sgpr_val, inline)',
     'scalar_val = (off < _c(128)).where(sgpr_val, _patch_aperture(off, sgpr_lo, inline))'),
    ('return base_addr + offset64', 'return _patch_flat_address(inst, base_addr + offset64)'),
    ('return exp.eq(_c(0)).where(_c(0), f32_bits)',
     'return _patch_mfma_f16(sign, exp, mant, f32_bits)'),
    ('src2_r = (src2_r >= 256).where(src2_r - _c(256), src2_r)',
     'src2_c, src2_r = src2_r, (src2_r >= 256).where(src2_r - _c(256), src2_r)'),
    ('mat_c = [ctx.rvgpr_dyn(src2_r + _c(vgpr), UOp.const(lane, dtypes.int)).bitcast(out_dt)',
     'mat_c = [_patch_wmma_c(ctx, src2_c, vgpr, UOp.const(lane, dtypes.int)).bitcast(out_dt)'),
]


def emulator(root, lds_address, flush_f16):
    """The patched module of the emulator. LDS is at `lds_address` in device memory; with
    `flush_f16` MFMA flushes subnormals of f16 to 0."""
    sys.path.insert(0, str(root))
    from tinygrad.dtype import dtypes
    from tinygrad.uop.ops import UOp
    pcode = load(root, 'test.mockgpu.amd.pcode', PCODE_EDITS)
    emu = load(root, 'test.mockgpu.amd.emu', EMU_EDITS)
    api = types.SimpleNamespace(dtypes=dtypes, UOp=UOp, split64=emu._split64, to_u32=pcode._to_u32,
                                cast_to=pcode._cast_to, lds_address=lds_address,
                                lane_active=emu._lane_active, flush_f16=flush_f16)
    emu.__dict__.update(make_addresses(api))
    replace(emu, '_mem_store', make_store(api))
    replace(pcode.Parser, '_handle_mem_load', make_load(api))
    replace(emu, '_fix_div_scale', div_scale)
    if emu._pcode_fixes['V_DIV_FMAS_F32'][0] != div_fmas()[0]:
        raise Unfit('the text of V_DIV_FMAS_F32 differs from the one that its patch requires')
    emu._pcode_fixes['V_DIV_FMAS_F32'] = div_fmas()
    replace(emu, 'get_pcode', make_get_pcode(emu.get_pcode))

    mem_op, patched_mem_op = emu._compile_mem_op, make_mem_op(api, emu._compile_mem_op)
    for kind, handler in emu._INST_HANDLERS.items():
        if handler is mem_op:
            emu._INST_HANDLERS[kind] = patched_mem_op
    replace(emu._Ctx, 'compile_lane_pcode', make_lane_op(emu._Ctx.compile_lane_pcode))

    optional_field, attribute = emu._Ctx.optional_field, emu._iattr
    # FLAT of CDNA has the field, but not the operand.
    replace(emu._Ctx, 'optional_field', lambda self, inst, name: None
            if name == 'saddr' and type(inst) is emu.irc.FLAT
            else optional_field(self, inst, name))
    replace(emu, '_iattr', lambda inst, name, default=0: returns_old_value(inst)
            if name == 'glc' else attribute(inst, name, default))
    return emu
