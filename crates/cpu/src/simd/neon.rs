//! Arm's NEON with byte dot products (Armv8.2 onwards): four registers for one vector.
//!
//! The compiler's own dot products are not stable yet, so they and the conversion of halves are
//! written as instructions.

use std::arch::{aarch64::*, asm};

use super::{grid::Grid, isa::Isa, portable};

/// The instructions.
#[derive(Clone, Copy)]
pub struct Neon {
    grid: &'static Grid,
}

impl Neon {
    /// # Safety
    /// The processor must have byte dot products.
    pub unsafe fn new() -> Self {
        Neon { grid: Grid::get() }
    }
}

/// Evaluates an expression of intrinsics.
macro_rules! have {
    ($e:expr) => {
        // SAFETY: every processor that this is compiled for has NEON; addresses come from references
        // to arrays of the register's size.
        unsafe { $e }
    };
}

/// The same expression for each of the four registers.
macro_rules! each {
    ($i:ident => $e:expr) => {
        have!([
            { const $i: usize = 0; $e },
            { const $i: usize = 1; $e },
            { const $i: usize = 2; $e },
            { const $i: usize = 3; $e },
        ])
    };
}

impl Isa for Neon {
    type B = [uint8x16_t; 4];
    type I = [int32x4_t; 4];
    type F = [float32x4_t; 4];

    const BIAS: i32 = 0;

    #[inline(always)]
    fn bytes(self, from: &[u8; 64]) -> Self::B {
        each!(I => vld1q_u8(from.as_ptr().add(16 * I)))
    }
    #[inline(always)]
    fn signed(self, from: &[i8; 64]) -> Self::B {
        each!(I => vreinterpretq_u8_s8(vld1q_s8(from.as_ptr().add(16 * I))))
    }
    #[inline(always)]
    fn words(self, from: &[i16; 32]) -> Self::B {
        each!(I => vreinterpretq_u8_s16(vld1q_s16(from.as_ptr().add(8 * I))))
    }
    #[inline(always)]
    fn half_words(self, from: &[i16; 16]) -> Self::B {
        let zero = have!(vdupq_n_u8(0));
        let at = from.as_ptr();
        have!([
            vreinterpretq_u8_s16(vld1q_s16(at)),
            vreinterpretq_u8_s16(vld1q_s16(at.add(8))),
            zero,
            zero,
        ])
    }
    #[inline(always)]
    fn widen(self, low: &[u8; 16], high: &[u8; 16]) -> Self::B {
        have!({
            let (low, high) = (vld1q_u8(low.as_ptr()), vld1q_u8(high.as_ptr()));
            [
                vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(low))),
                vreinterpretq_u8_u16(vmovl_high_u8(low)),
                vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(high))),
                vreinterpretq_u8_u16(vmovl_high_u8(high)),
            ]
        })
    }
    #[inline(always)]
    fn pair(self, low: &[u8; 32], high: &[u8; 32]) -> Self::B {
        let (low, high) = (low.as_ptr(), high.as_ptr());
        have!([vld1q_u8(low), vld1q_u8(low.add(16)), vld1q_u8(high), vld1q_u8(high.add(16))])
    }
    #[inline(always)]
    fn quad(self, from: [&[u8; 16]; 4]) -> Self::B {
        each!(I => vld1q_u8(from[I].as_ptr()))
    }
    #[inline(always)]
    fn repeat(self, from: &[u8; 16]) -> Self::B {
        have!([vld1q_u8(from.as_ptr()); 4])
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Self::B {
        have!([vdupq_n_u8(byte); 4])
    }
    #[inline(always)]
    fn splat_word(self, word: i16) -> Self::B {
        have!([vreinterpretq_u8_s16(vdupq_n_s16(word)); 4])
    }
    #[inline(always)]
    fn store(self, v: Self::B, to: &mut [u8; 64]) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<16>().0) {
            have!(vst1q_u8(to.as_mut_ptr(), v));
        }
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        each!(I => vandq_u8(a[I], b[I]))
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        each!(I => vorrq_u8(a[I], b[I]))
    }
    #[inline(always)]
    fn shr<const N: u32>(self, v: Self::B) -> Self::B {
        shift_words(v, -(N as i16))
    }
    #[inline(always)]
    fn shl<const N: u32>(self, v: Self::B) -> Self::B {
        shift_words(v, N as i16)
    }
    #[inline(always)]
    fn sar8(self, v: Self::B) -> Self::B {
        each!(I => vreinterpretq_u8_s16(vshrq_n_s16::<8>(vreinterpretq_s16_u8(v[I]))))
    }
    #[inline(always)]
    fn mul_words(self, a: Self::B, b: Self::B) -> Self::B {
        each!(I => vreinterpretq_u8_u16(vmulq_u16(
            vreinterpretq_u16_u8(a[I]),
            vreinterpretq_u16_u8(b[I]),
        )))
    }
    #[inline(always)]
    fn lookup(self, table: Self::B, index: Self::B) -> Self::B {
        each!(I => vqtbl1q_u8(table[I], index[I]))
    }
    #[inline(always)]
    fn lookup_nibbles(self, table: &[u8; 16], codes: Self::B) -> [Self::B; 2] {
        portable::lookup_nibbles(self, table, codes)
    }
    #[inline(always)]
    fn lookup_fields(self, table: &[u8; 4], codes: Self::B) -> [Self::B; 4] {
        portable::lookup_fields(self, table, codes)
    }
    #[inline(always)]
    fn flip(self, v: Self::B, bits: Self::B, which: Self::B) -> Self::B {
        each!(I => {
            let minus = vtstq_u8(bits[I], which[I]);
            vsubq_u8(veorq_u8(v[I], minus), minus)
        })
    }
    #[inline(always)]
    fn ready(self, v: Self::B) -> Self::B {
        v
    }

    #[inline(always)]
    fn ints(self, from: &[i32; 16]) -> Self::I {
        each!(I => vld1q_s32(from.as_ptr().add(4 * I)))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        have!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn as_ints(self, v: Self::B) -> Self::I {
        each!(I => vreinterpretq_s32_u8(v[I]))
    }
    #[inline(always)]
    fn as_bytes(self, v: Self::I) -> Self::B {
        each!(I => vreinterpretq_u8_s32(v[I]))
    }
    #[inline(always)]
    fn add(self, a: Self::I, b: Self::I) -> Self::I {
        each!(I => vaddq_s32(a[I], b[I]))
    }
    #[inline(always)]
    fn sub(self, a: Self::I, b: Self::I) -> Self::I {
        each!(I => vsubq_s32(a[I], b[I]))
    }
    #[inline(always)]
    fn mul(self, a: Self::I, b: Self::I) -> Self::I {
        each!(I => vmulq_s32(a[I], b[I]))
    }
    #[inline(always)]
    fn shl_int<const N: u32>(self, v: Self::I) -> Self::I {
        each!(I => vshlq_s32(v[I], vdupq_n_s32(N as i32)))
    }
    #[inline(always)]
    fn shr_int<const N: u32>(self, v: Self::I) -> Self::I {
        each!(I => vreinterpretq_s32_u32(vshlq_u32(
            vreinterpretq_u32_s32(v[I]),
            vdupq_n_s32(-(N as i32)),
        )))
    }
    #[inline(always)]
    fn dup_odd(self, v: Self::I) -> Self::I {
        each!(I => vtrn2q_s32(v[I], v[I]))
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I {
        sdots(sum, weights, x)
    }
    #[inline(always)]
    fn dot_signed(self, sum: Self::I, weights: Self::B, x: Self::B) -> Self::I {
        sdots(sum, weights, x)
    }
    #[inline(always)]
    fn dot_words(self, sum: Self::I, a: Self::B, b: Self::B) -> Self::I {
        each!(I => {
            let (a, b) = (vreinterpretq_s16_u8(a[I]), vreinterpretq_s16_u8(b[I]));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(sum[I], vpaddq_s32(low, vmull_high_s16(a, b)))
        })
    }
    #[inline(always)]
    fn dot_scaled(self, sum: Self::I, weights: Self::B, x: Self::B, scale: Self::B) -> Self::I {
        let dots = sdots(self.splat_int(0), weights, x);
        each!(I => {
            let scale = vshlq_n_s32::<16>(vreinterpretq_s32_u8(scale[I]));
            vmlaq_s32(sum[I], dots[I], vshrq_n_s32::<16>(scale))
        })
    }
    #[inline(always)]
    fn halve(self, a: Self::I, b: Self::I) -> Self::I {
        have!([
            vaddq_s32(a[0], a[2]),
            vaddq_s32(a[1], a[3]),
            vaddq_s32(b[0], b[2]),
            vaddq_s32(b[1], b[3]),
        ])
    }
    #[inline(always)]
    fn sums_of_8(self, v: [Self::I; 8]) -> Self::I {
        each!(I => {
            let (a, b) = (v[2 * I], v[2 * I + 1]);
            vpaddq_s32(
                vpaddq_s32(vaddq_s32(a[0], a[1]), vaddq_s32(a[2], a[3])),
                vpaddq_s32(vaddq_s32(b[0], b[1]), vaddq_s32(b[2], b[3])),
            )
        })
    }
    #[inline(always)]
    fn sums_of_4(self, v: [Self::I; 4]) -> Self::I {
        each!(I => vpaddq_s32(vpaddq_s32(v[I][0], v[I][1]), vpaddq_s32(v[I][2], v[I][3])))
    }

    #[inline(always)]
    fn floats(self, from: &[f32; 16]) -> Self::F {
        each!(I => vld1q_f32(from.as_ptr().add(4 * I)))
    }
    #[inline(always)]
    fn twice(self, from: &[f32; 8]) -> Self::F {
        each!(I => vld1q_f32(from.as_ptr().add(I % 2 * 4)))
    }
    #[inline(always)]
    fn splat_float(self, x: f32) -> Self::F {
        have!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn store_floats(self, v: Self::F, to: &mut [f32; 16]) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<4>().0) {
            have!(vst1q_f32(to.as_mut_ptr(), v));
        }
    }
    #[inline(always)]
    fn float(self, v: Self::I) -> Self::F {
        each!(I => vcvtq_f32_s32(v[I]))
    }
    #[inline(always)]
    fn halves(self, from: [u16; 16]) -> Self::F {
        each!(I => {
            let halves = vld1_u16(from.as_ptr().add(4 * I));
            let floats: float32x4_t;
            asm!(
                "fcvtl {floats:v}.4s, {halves:v}.4h",
                floats = lateout(vreg) floats,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
            floats
        })
    }
    #[inline(always)]
    fn powers(self, from: [u8; 16]) -> Self::F {
        let mut wide = [0; 16];
        for (wide, code) in wide.iter_mut().zip(from) {
            *wide = u32::from(code);
        }
        each!(I => {
            let codes = vld1q_u32(wide.as_ptr().add(4 * I));
            // Code 0 is the subnormal 2^-127.
            let values = vmaxq_u32(vshlq_n_u32::<23>(codes), vdupq_n_u32(0x0040_0000));
            let nan = vceqq_u32(codes, vdupq_n_u32(255));
            vreinterpretq_f32_u32(vbslq_u32(nan, vdupq_n_u32(0x7fc0_0000), values))
        })
    }
    #[inline(always)]
    fn mul_floats(self, a: Self::F, b: Self::F) -> Self::F {
        each!(I => vmulq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn add_floats(self, a: Self::F, b: Self::F) -> Self::F {
        each!(I => vaddq_f32(a[I], b[I]))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each!(I => vfmaq_f32(c[I], a[I], b[I]))
    }
    #[inline(always)]
    fn total(self, v: Self::F) -> f32 {
        have!({
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        })
    }

    #[inline(always)]
    fn q8_scales(self, blocks: &[u8; 544]) -> Self::F {
        portable::q8_scales(self, blocks)
    }
    #[inline(always)]
    fn mxfp4(self, blocks: &[u8; 272]) -> ([Self::B; 4], Self::F) {
        portable::mxfp4(self, blocks)
    }
    #[inline(always)]
    fn iq2xxs(self, groups: &[u8; 64]) -> (Self::B, Self::B) {
        let (codes, signs) = portable::iq2xxs(self.grid, groups);
        (longs(codes), longs(signs))
    }
    #[inline(always)]
    fn dot_e4m3(self, sums: [Self::I; 2], codes: Self::B, x: Self::B) -> [Self::I; 2] {
        portable::dot_e4m3(self, sums, codes, x)
    }
    #[inline(always)]
    fn turn(self, rows: &[[u8; 64]; 16], groups: &mut [[u8; 64]; 16]) {
        portable::turn(rows, groups)
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint, which no address makes fail.
        unsafe {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags))
        }
    }
}

/// Adds to each integer the four products of signed bytes.
#[inline(always)]
fn sdots(sum: [int32x4_t; 4], a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [int32x4_t; 4] {
    [
        sdot(sum[0], a[0], b[0]),
        sdot(sum[1], a[1], b[1]),
        sdot(sum[2], a[2], b[2]),
        sdot(sum[3], a[3], b[3]),
    ]
}

#[inline(always)]
fn sdot(mut sum: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t {
    // SAFETY: a `Neon` is only made where the processor has the instruction.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Words shifted left, or right by a negative count.
#[inline(always)]
fn shift_words(v: [uint8x16_t; 4], count: i16) -> [uint8x16_t; 4] {
    each!(I => vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(v[I]), vdupq_n_s16(count))))
}

/// Eight bytes from each integer.
#[inline(always)]
fn longs(from: [u64; 8]) -> [uint8x16_t; 4] {
    each!(I => vcombine_u8(vcreate_u8(from[2 * I]), vcreate_u8(from[2 * I + 1])))
}
