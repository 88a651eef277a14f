// Number types, and the arithmetic that each is computed in.
struct half { u16 bits; };
struct bfloat { u16 bits; };

template <typename T> struct Number { typedef float Float; };
template <> struct Number<double> { typedef double Float; };

DEVICE float decode(float x) { return x; }
DEVICE double decode(double x) { return x; }
DEVICE float decode(half x) { return from_half(x.bits); }
DEVICE float decode(bfloat x) { return float_of((u32)x.bits << 16); }

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
template <typename A> DEVICE bool is_finite(A x) { return x - x == (A)0; }
template <typename A> DEVICE A magnitude(A x) { return x < 0 ? -x : x; }
