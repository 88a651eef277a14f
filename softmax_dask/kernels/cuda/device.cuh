// What the kernels ask of the machine. No header is included, so that NVRTC needs no CUDA toolkit.
// tests/library/cuda/emulator.h has the same names for the CPU.
#ifndef EMULATED
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__
// `resident`: threads that a multiprocessor must have registers for. Before sm_80, and for sm_120, the compiler takes more
// of them for the same.
#if __CUDA_ARCH__ >= 800 && __CUDA_ARCH__ < 1200
#define THAT_FIT(resident) (resident)
#else
#define THAT_FIT(resident) ((resident) * 2 / 3)
#endif
#define KERNEL(threads, resident)           \
  extern "C" __global__ void __launch_bounds__( \
      threads, (threads) < THAT_FIT(resident) ? THAT_FIT(resident) / (threads) : 1)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]

struct alignas(16) Word4 { u32 w[4]; };
struct alignas(8) Word2 { u32 w[2]; };

// Asked for at each use: kept in registers, or what hangs on them, they would make kernels spill.
DEVICE int thread() {
  int r;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(r));
  return r;
}
DEVICE int block() { return blockIdx.x; }
DEVICE int blocks() { return gridDim.x; }

// ---- memory. Without hints but where a row is read again: what comes in between must not take its place in the cache.
// Where it is not, hints for data that is used once make a copy 5 % slower (H200).

template <bool LAST> DEVICE Word4 load16(const void* p) {
  const uint4 q = LAST ? __ldcs((const uint4*)p) : __ldg((const uint4*)p);
  return {{q.x, q.y, q.z, q.w}};
}
template <bool ASIDE> DEVICE void store16(void* p, Word4 v) {
  const uint4 q = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
  if (ASIDE) __stcs((uint4*)p, q);
  else *(uint4*)p = q;
}
template <bool ASIDE> DEVICE void store8(void* p, Word2 v) {
  const uint2 q = make_uint2(v.w[0], v.w[1]);
  if (ASIDE) __stcs((uint2*)p, q);
  else *(uint2*)p = q;
}
template <typename T> DEVICE T load(const T* p) { return *p; }
template <typename T> DEVICE void store(T* p, T v) { *p = v; }

// ---- what threads tell each other

template <typename T> DEVICE T get(const T* shared) { return *shared; }
template <typename T> DEVICE void put(T* shared, T v) { *shared = v; }
DEVICE void meet() { __syncthreads(); }
template <typename T> DEVICE T from_lane_xor(T v, int bits) { return __shfl_xor_sync(0xffffffffu, v, bits); }
template <typename T> DEVICE T from_lane(T v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }

// ---- numbers. CuPy compiles with -ftz=true; PTX without .ftz compares subnormal logits all the same.

DEVICE u32 bits_of(float x) { return __float_as_uint(x); }
DEVICE float float_of(u32 bits) { return __uint_as_float(bits); }
DEVICE u64 bits_of(double x) { return (u64)__double_as_longlong(x); }
DEVICE double double_of(u64 bits) { return __longlong_as_double((i64)bits); }
DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
DEVICE float larger(float a, float b) {  // the other one of a NaN
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
DEVICE double larger(double a, double b) { return fmax(a, b); }
#if __CUDA_ARCH__ >= 800
#define WARP_LOWEST
DEVICE int lowest_of_warp(int x) { return __reduce_min_sync(0xffffffffu, x); }
#define PAIRS  // of 16-bit numbers, as `larger`
DEVICE u32 larger_halves(u32 a, u32 b) {
  u32 r;
  asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE u32 larger_bfloats(u32 a, u32 b) {
  u32 r;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
DEVICE float at_least(float x, float low) {  // NaN stays
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(x), "f"(low));
  return r;
}
#else
DEVICE float at_least(float x, float low) { return x < low ? low : x; }
#endif
DEVICE double at_least(double x, double low) { return x < low ? low : x; }
DEVICE bool same(float a, float b) {
  u32 r;
  asm("set.eq.u32.f32 %0, %1, %2;" : "=r"(r) : "f"(a), "f"(b));
  return r != 0;
}
DEVICE bool same(double a, double b) { return a == b; }
DEVICE bool above(float a, float b) {
  u32 r;
  asm("set.gt.u32.f32 %0, %1, %2;" : "=r"(r) : "f"(a), "f"(b));
  return r != 0;
}
DEVICE bool above(double a, double b) { return a > b; }
DEVICE float exp2_approximately(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float from_half(u16 bits) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(bits));
  return r;
}
DEVICE u16 to_half(float x) {
  u16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
DEVICE u32 funnel(u32 low, u32 high, int bits) { return __funnelshift_r(low, high, bits); }
#endif
