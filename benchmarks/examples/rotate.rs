//! The C interface in Rust: rotates q and k, and compares them with the formula in f64.
//!
//!     rustc --edition 2021 rotate.rs -L LIBRARY_FOLDER
//!     ./rotate --c-checks > checks.c && cc -c checks.c     # the declarations equal the headers'
//!     ./rotate

mod ropewalk;

use ropewalk::*;
use std::ffi::CStr;
use std::os::raw::{c_char, c_void};
use std::ptr;

const TOKENS: usize = 16;
const WIDTH: usize = 64;

struct Context(*mut rw_context);

impl Drop for Context {
    fn drop(&mut self) {
        unsafe { rw_context_destroy(self.0) }
    }
}

struct Rope(*mut rw_rope);

impl Drop for Rope {
    fn drop(&mut self) {
        unsafe { rw_rope_destroy(self.0) }
    }
}

fn sentence(text: *const c_char) -> String {
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Context {
    fn new(backend: rw_backend_kind) -> Result<Context, String> {
        let options = rw_context_options { backend, ..Default::default() };
        let (mut context, mut why) = (ptr::null_mut(), rw_message::default());
        match unsafe { rw_context_create(&options, &mut context, &mut why) } {
            RW_OK => Ok(Context(context)),
            _ => Err(sentence(why.text.as_ptr())),
        }
    }

    fn check(&self, status: rw_status) -> Result<(), String> {
        match status {
            RW_OK => Ok(()),
            _ => Err(sentence(unsafe { rw_last_error(self.0) })),
        }
    }

    fn rope(&self, options: &rw_rope_options) -> Result<Rope, String> {
        let mut rope = ptr::null_mut();
        self.check(unsafe { rw_rope_create(self.0, options, &mut rope) })?;
        Ok(Rope(rope))
    }
}

/// A view of `data` as [tokens, heads, WIDTH], which must live as long as it is used.
fn tensor(data: &mut [f32]) -> rw_tensor {
    let shape = [TOKENS as i64, (data.len() / TOKENS / WIDTH) as i64, WIDTH as i64];
    let start = data.as_mut_ptr() as *mut c_void;
    unsafe { rw_tensor_contiguous(start, RW_F32, 3, shape.as_ptr()) }
}

/// Half-split pairs and the default frequencies.
fn expected(x: &[f32], theta: f64) -> Vec<f64> {
    let half = WIDTH / 2;
    let heads = x.len() / TOKENS / WIDTH;
    let mut out: Vec<f64> = x.iter().map(|&x| x as f64).collect();
    for (row, y) in out.chunks_mut(WIDTH).enumerate() {
        for i in 0..half {
            let angle = (row / heads) as f64 * theta.powf(-((2 * i) as f64) / WIDTH as f64);
            let (a, b) = (y[i], y[i + half]);
            y[i] = a * angle.cos() - b * angle.sin();
            y[i + half] = b * angle.cos() + a * angle.sin();
        }
    }
    out
}

fn run() -> Result<f64, String> {
    if unsafe { rw_abi_version() } != RW_ABI_VERSION {
        return Err("libropewalk has another interface".to_string());
    }
    let context = Context::new(RW_BACKEND_CPU)?;
    let spec = rw_rope_spec { head_dim: WIDTH as i64, theta: 5e5, ..Default::default() };
    let rope = context.rope(&rw_rope_options {
        spec,
        max_positions: TOKENS as i64,
        ..Default::default()
    })?;
    let numbers = |heads: usize| -> Vec<f32> {
        (0..TOKENS * heads * WIDTH).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect()
    };
    let (mut q, mut k) = (numbers(4), numbers(2));
    let formula = [expected(&q, spec.theta), expected(&k, spec.theta)];
    let args = rw_rope_args { q: tensor(&mut q), k: tensor(&mut k), ..Default::default() };
    context.check(unsafe { rw_rope_apply(context.0, rope.0, &args) })?;
    context.check(unsafe { rw_synchronize(context.0) })?;
    let pairs = q.iter().chain(&k).zip(formula.iter().flatten());
    Ok(pairs.map(|(x, y)| (*x as f64 - y).abs()).fold(0.0, f64::max))
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--c-checks") {
        return print!("{}", c_checks());
    }
    match run() {
        Ok(worst) if worst < 1e-6 => println!("rotated: differs by at most {:.1e}", worst),
        Ok(worst) => {
            eprintln!("differs by {:.1e}", worst);
            std::process::exit(1)
        }
        Err(sentence) => {
            eprintln!("{}", sentence);
            std::process::exit(1)
        }
    }
}
