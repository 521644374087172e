//! The part of the C interface of ropewalk that rotate.rs uses, for foreign function calls without
//! generated bindings. `c_checks()` is a C file that compiles only if every declaration here equals
//! that of the installed headers: types of functions, of fields and their offsets, sizes,
//! enumerators and versions.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_void};

pub const RW_ABI_VERSION: i32 = 1;

/// A type of the C interface.
pub trait CType {
    /// Its name in C.
    fn c() -> String;
}

macro_rules! c_types {
    ($($rust:ty => $c:expr),* $(,)?) => {
        $(impl CType for $rust {
            fn c() -> String {
                $c.to_string()
            }
        })*
    };
}

c_types! {
    () => "void", c_void => "void", c_char => "char", bool => "bool", f32 => "float",
    f64 => "double", i32 => "int32_t", i64 => "int64_t", u8 => "uint8_t",
}

impl<T: CType> CType for *const T {
    fn c() -> String {
        format!("__typeof__(const {} *)", T::c())
    }
}

impl<T: CType> CType for *mut T {
    fn c() -> String {
        format!("__typeof__({} *)", T::c())
    }
}

impl<T: CType, const N: usize> CType for [T; N] {
    fn c() -> String {
        format!("__typeof__({} [{}])", T::c(), N)
    }
}

macro_rules! c_function_types {
    ($($name:ident),*) => {
        impl<R: CType, $($name: CType),*> CType for Option<unsafe extern "C" fn($($name),*) -> R> {
            fn c() -> String {
                let parameters: Vec<String> = vec![$($name::c()),*];
                format!("__typeof__({} (*)({}))", R::c(), parameters.join(", "))
            }
        }
    };
}

c_function_types!(A, B);
c_function_types!(A, B, C, D);

fn assertion(condition: String) -> String {
    format!("_Static_assert({}, \"{}\");\n", condition, condition.replace('"', "'"))
}

fn same_type(a: &str, b: &str) -> String {
    assertion(format!("__builtin_types_compatible_p({}, {})", a, b))
}

/// Structs, enumerations (a number with constants: C may return others) and functions.
macro_rules! c_interface {
    (
        opaque { $($opaque:ident),* $(,)? }
        enums { $($enumeration:ident { $($value:ident = $number:expr),* $(,)? })* }
        structs { $($structure:ident { $($field:ident: $type:ty),* $(,)? })* }
        functions { $(fn $function:ident($($parameter:ident: $kind:ty),* $(,)?) -> $result:ty;)* }
    ) => {
        $(
            #[repr(C)]
            pub struct $opaque {
                _private: [u8; 0],
            }
            c_types! { $opaque => stringify!($opaque) }
        )*
        $(
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $enumeration(pub u32);
            c_types! { $enumeration => stringify!($enumeration) }
            $(#[allow(dead_code)] pub const $value: $enumeration = $enumeration($number);)*
        )*
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $structure {
                $(pub $field: $type,)*
            }
            c_types! { $structure => stringify!($structure) }
            impl Default for $structure {
                /// Zeros: the default of every field.
                fn default() -> Self {
                    unsafe { std::mem::zeroed() }
                }
            }
        )*
        #[link(name = "ropewalk")]
        extern "C" {
            $(pub fn $function($($parameter: $kind),*) -> $result;)*
        }

        pub fn c_checks() -> String {
            let mut text = String::from("#include <ropewalk/ropewalk.h>\n");
            text += &assertion(format!("RW_ABI_VERSION == {}", RW_ABI_VERSION));
            $(
                text += &assertion(format!("sizeof({}) == 4", stringify!($enumeration)));
                $(text += &assertion(format!("{} == {}", stringify!($value), $value.0));)*
            )*
            $({
                let (name, zero) = (stringify!($structure), $structure::default());
                let size = std::mem::size_of::<$structure>();
                text += &assertion(format!("sizeof({}) == {}", name, size));
                text += &assertion(format!(
                    "_Alignof({}) == {}", name, std::mem::align_of::<$structure>()
                ));
                $(
                    let field = stringify!($field).trim_start_matches("r#");
                    let offset = std::ptr::addr_of!(zero.$field) as usize
                        - std::ptr::addr_of!(zero) as usize;
                    text += &assertion(format!("offsetof({}, {}) == {}", name, field, offset));
                    let theirs = format!("__typeof__((({} *)0)->{})", name, field);
                    text += &same_type(&theirs, &<$type as CType>::c());
                )*
            })*
            $({
                let parameters: Vec<String> = vec![$(<$kind as CType>::c()),*];
                let parameters =
                    if parameters.is_empty() { "void".to_string() } else { parameters.join(", ") };
                let ours = format!("__typeof__({} (*)({}))", <$result as CType>::c(), parameters);
                text += &same_type(&format!("__typeof__(&{})", stringify!($function)), &ours);
            })*
            text
        }
    };
}

pub const RW_MAX_RANK: usize = 4;

type Task = Option<unsafe extern "C" fn(*mut c_void, i32) -> ()>;

c_interface! {
    opaque { rw_context, rw_rope }

    enums {
        rw_status {
            RW_OK = 0, RW_INVALID_ARGUMENT = 1, RW_OUT_OF_RANGE = 2, RW_UNSUPPORTED = 3,
            RW_OUT_OF_MEMORY = 4, RW_BACKEND_UNAVAILABLE = 5, RW_DEVICE_ERROR = 6,
        }
        rw_dtype { RW_F32 = 0, RW_F16 = 1, RW_BF16 = 2, RW_I32 = 3, RW_I64 = 4, RW_U8 = 5 }
        rw_backend_kind {
            RW_BACKEND_DEFAULT = 0, RW_BACKEND_AUTO = 1, RW_BACKEND_CPU = 2, RW_BACKEND_HIP = 3,
        }
        rw_cpu_isa {
            RW_CPU_ISA_DEFAULT = 0, RW_CPU_ISA_BASELINE = 1, RW_CPU_ISA_V3 = 2, RW_CPU_ISA_V4 = 3,
            RW_CPU_ISA_AMX = 4,
        }
        rw_rope_type {
            RW_ROPE_DEFAULT = 0, RW_ROPE_LINEAR = 1, RW_ROPE_DYNAMIC = 2, RW_ROPE_YARN = 3,
            RW_ROPE_LONGROPE = 4, RW_ROPE_LLAMA3 = 5, RW_ROPE_PROPORTIONAL = 6,
        }
        rw_rope_pairing { RW_ROPE_HALF = 0, RW_ROPE_INTERLEAVED = 1 }
        rw_rope_axes {
            RW_ROPE_AXES_ONE = 0, RW_ROPE_AXES_MROPE_CHUNKED = 1,
            RW_ROPE_AXES_MROPE_INTERLEAVED = 2, RW_ROPE_AXES_VISION_2D = 3,
            RW_ROPE_AXES_2D_INTERLEAVED = 4,
        }
        rw_rope_direction { RW_ROPE_FORWARD = 0, RW_ROPE_INVERSE = 1, RW_ROPE_BACKWARD = 2 }
    }

    structs {
        rw_message { text: [c_char; 256] }
        rw_context_options {
            backend: rw_backend_kind,
            device: i32,
            num_threads: i32,
            cpu_isa: rw_cpu_isa,
            log: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> ()>,
            log_user: *mut c_void,
            parallel_for: Option<unsafe extern "C" fn(*mut c_void, i32, Task, *mut c_void) -> ()>,
            parallel_for_user: *mut c_void,
        }
        rw_tensor {
            data: *mut c_void,
            dtype: rw_dtype,
            rank: i32,
            shape: [i64; RW_MAX_RANK],
            stride: [i64; RW_MAX_RANK],
        }
        rw_rope_spec {
            r#type: rw_rope_type,
            pairing: rw_rope_pairing,
            head_dim: i64,
            rotary_start: i64,
            rotary_dim: i64,
            partial_rotary_factor: f64,
            theta: f64,
            max_position_embeddings: i64,
            original_max_position_embeddings: i64,
            factor: f64,
            attention_factor: f64,
            beta_fast: f64,
            beta_slow: f64,
            mscale: f64,
            mscale_all_dim: f64,
            no_truncate: bool,
            low_freq_factor: f64,
            high_freq_factor: f64,
            short_factor: *const f64,
            long_factor: *const f64,
            short_mscale: f64,
            long_mscale: f64,
            frequency_factors: *const f32,
            axes: rw_rope_axes,
            sections: [i64; 3],
        }
        rw_rope_options { spec: rw_rope_spec, seq_len: i64, max_positions: i64 }
        rw_rope_args {
            q: rw_tensor,
            k: rw_tensor,
            q_out: rw_tensor,
            k_out: rw_tensor,
            positions: rw_tensor,
            offsets: rw_tensor,
            offset: i64,
            direction: rw_rope_direction,
        }
    }

    functions {
        fn rw_abi_version() -> i32;
        fn rw_last_error(context: *const rw_context) -> *const c_char;
        fn rw_context_create(
            options: *const rw_context_options,
            context: *mut *mut rw_context,
            message: *mut rw_message,
        ) -> rw_status;
        fn rw_context_destroy(context: *mut rw_context) -> ();
        fn rw_synchronize(context: *mut rw_context) -> rw_status;
        fn rw_tensor_contiguous(
            data: *mut c_void, dtype: rw_dtype, rank: i32, shape: *const i64,
        ) -> rw_tensor;
        fn rw_rope_create(
            context: *mut rw_context, options: *const rw_rope_options, rope: *mut *mut rw_rope,
        ) -> rw_status;
        fn rw_rope_destroy(rope: *mut rw_rope) -> ();
        fn rw_rope_apply(
            context: *mut rw_context, rope: *const rw_rope, args: *const rw_rope_args,
        ) -> rw_status;
    }
}
