// Number types, and the arithmetic that each is computed in.
struct half { u16 bits; };
struct bfloat { u16 bits; };

template <typename T> struct Number { typedef float Float; };
template <> struct Number<double> { typedef double Float; };

DEVICE float decode(float x) { return x; }
DEVICE double decode(double x) { return x; }
DEVICE float decode(half x) { return from_half(x.bits); }
DEVICE float decode(bfloat x) { return float_of((u32)x.bits << 16); }

// Two 16-bit numbers at once, where the machine can; the larger of each two.
#ifdef PAIRS
DEVICE u32 larger_pair(u32 a, u32 b, half*) { return larger_halves(a, b); }
DEVICE u32 larger_pair(u32 a, u32 b, bfloat*) { return larger_bfloats(a, b); }
#else
template <typename T> DEVICE u32 larger_pair(u32 a, u32 b, T*) {
  u32 found = 0;
#pragma unroll
  for (int bit = 0; bit < 32; bit += 16) {
    const float x = decode(T{(u16)(a >> bit)}), y = decode(T{(u16)(b >> bit)});
    found |= (above(y, x) || x != x ? b : a) & (0xffffu << bit);
  }
  return found;
}
#endif

template <typename T> struct Encode;
template <> struct Encode<float> { template <typename A> DEVICE static float of(A x) { return (float)x; } };
template <> struct Encode<double> { template <typename A> DEVICE static double of(A x) { return x; } };
template <> struct Encode<half> { template <typename A> DEVICE static half of(A x) { return {to_half((float)x)}; } };
template <> struct Encode<bfloat> {
  template <typename A> DEVICE static bfloat of(A x) {
    u32 b = bits_of((float)x);
    u32 rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;  // to nearest, ties to even
    return {(u16)(x != x ? 0x7fc0u : rounded)};
  }
};

template <typename A> struct Limits;
template <> struct Limits<float> {
  DEVICE static float infinity() { return float_of(0x7f800000u); }
  DEVICE static float nan() { return float_of(0x7fc00000u); }
};
template <> struct Limits<double> {
  DEVICE static double infinity() { return double_of(0x7ff0000000000000ull); }
  DEVICE static double nan() { return double_of(0x7ff8000000000000ull); }
};
template <typename A> DEVICE A minus_infinity() { return -Limits<A>::infinity(); }
// The upper half of -inf, twice where a number has 16 bits: with 0 below it of double, its words in memory.
template <typename T> DEVICE u32 minus_infinity_word() { return 0xff800000u; }
template <> DEVICE u32 minus_infinity_word<double>() { return 0xfff00000u; }
template <> DEVICE u32 minus_infinity_word<half>() { return 0xfc00fc00u; }
template <> DEVICE u32 minus_infinity_word<bfloat>() { return 0xff80ff80u; }
template <typename A> DEVICE bool is_finite(A x) { return x - x == (A)0; }
template <typename A> DEVICE A magnitude(A x) { return x < 0 ? -x : x; }
