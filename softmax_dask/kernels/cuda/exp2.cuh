// The exponential as a power of two that never forms x - max, the logarithm, and sums that lose nothing.
// Derivation: softmax_dask/kernels/cpu/exp2.py. With a = log2(e) / temperature in two parts,
//   n = round(x * a),   f = x * a - n,   exp(x / temperature) * 2^-k = 2^f * 2^(n - k),   k = round(peak * a).

template <typename A> struct Scale {
  A hi, lo;    // log2(e) / temperature
  A inverse;   // 1 / hi
};

template <typename A> struct Constants;  // MAGIC rounds to an integer and leaves it, biased, in the low bits
template <> struct Constants<float> {
  static const int BIAS = 127, MANTISSA = 23;
  DEVICE static float magic() { return 12583039.0f; }  // 1.5 * 2^23 + 127
  DEVICE static float big() { return 1048576.0f; }     // 2^20: beyond it the integer would not fit
};
template <> struct Constants<double> {
  static const int BIAS = 1023, MANTISSA = 52;
  DEVICE static double magic() { return 6755399441056767.0; }  // 1.5 * 2^52 + 1023
  DEVICE static double big() { return 1073741824.0; }          // 2^30
};

DEVICE float power_of_two(float biased) { return float_of(bits_of(biased) << 23); }
DEVICE double power_of_two(double biased) { return double_of(bits_of(biased) << 52); }

// q of 2^f = 1 + f q(f), |f| <= 1/2, by Estrin's scheme; coefficients of float32 by the same fit as
// in the CPU's exp2.py, which is of shorter ones. That fit is off by 3.4 eps in float64: there those of the least largest relative error, 1 eps.
DEVICE float fraction_polynomial(float f) {
  float g = f * f;
  const float high = fused(f, 0.00015461447765119374f, 0.0013390866806730628f), middle = fused(f, 0.009618056938052177f, 0.055503569543361664f), low = fused(f, 0.24022650718688965f, 0.6931471824645996f);
  return fused(g, fused(g, high, middle), low);
}
DEVICE double fraction_polynomial(double f) {
  double g = f * f;
  double low = fused(g, fused(f, 0.009618129107982097, 0.05550410866448123), fused(f, 0.24022650695909104, 0.6931471805599492));
  double middle = fused(g, fused(f, 1.3215652998201824e-06, 1.5252659391579864e-05), fused(f, 0.00015403529995501968, 0.001333355822587443));
  return fused(g * g, fused(g * g, fused(f, 7.038277275349416e-09, 1.020832901629183e-07), middle), low);
}

DEVICE float two_to(float f) { return exp2_approximately(f); }
DEVICE double two_to(double f) { return fused(f, fraction_polynomial(f), 1.0); }

// Exponentials of one row, relative to its largest logit `peak` (or to a power of two near it).
template <typename T> struct Powers {
  typedef typename Number<T>::Float A;
  Scale<A> scale;
  A shift;  // 0, or the peak where it is beyond BIG: there x - peak is exact (Sterbenz)
  A low;    // logits below it have exponential 0
  A magic;  // MAGIC - k

  DEVICE Powers(A peak, Scale<A> s) : scale(s) {
    const A scaled = peak * s.hi, plain = Constants<A>::magic() - (A)Constants<A>::BIAS;
    const bool fits = magnitude(scaled) <= Constants<A>::big();
    const A k = fits ? (scaled + plain) - plain : (A)0;
    shift = fits || peak == minus_infinity<A>() ? (A)0 : peak;
    low = (k - (A)Constants<A>::BIAS) * s.inverse;
    magic = Constants<A>::magic() - k;
  }
  DEVICE A reduced(A x, A& rounded) const {  // f, and n; -inf gives an exponential of exactly 0, NaN stays
    const A t = at_least(x - shift, low);
    rounded = fused(t, scale.hi, magic);
    return fused(t, scale.lo, fused(t, scale.hi, magic - rounded));
  }
  DEVICE A of(A x, A& log2) const {
    A rounded;
    const A f = reduced(x, rounded);
    log2 = f + (rounded - Constants<A>::magic());
    return fused(f, fraction_polynomial(f), (A)1) * power_of_two(rounded);
  }
  DEVICE A of(A x) const {
    A log2;
    return of(x, log2);
  }
  DEVICE A term(A x, A& log2) const {  // of a sum: float32 by the GPU's own unit, off by 2^-22.5 at most
    A rounded;
    const A f = reduced(x, rounded);
    log2 = f + (rounded - Constants<A>::magic());
    return two_to(f) * power_of_two(rounded);
  }
  DEVICE A term(A x) const {
    A log2;
    return term(x, log2);
  }
};

// 16-bit logits: the fast unit. Their differences have few digits, so x - peak is as good as exact.
template <typename T> struct ApproximatePowers {
  Scale<float> scale;
  float peak;

  DEVICE ApproximatePowers(float highest, Scale<float> s)
      : scale(s), peak(highest == minus_infinity<float>() ? 0.0f : highest) {}
  DEVICE float of(float x, float& log2) const {
    const float t = (x - peak) * scale.hi;
    log2 = larger(t, -200.0f);  // there the exponential is 0, and 0 * -inf would be NaN
    return exp2_approximately(t);
  }
  DEVICE float of(float x) const { return exp2_approximately((x - peak) * scale.hi); }
  DEVICE float term(float x, float& log2) const { return of(x, log2); }
  DEVICE float term(float x) const { return of(x); }
};
template <> struct Powers<half> : ApproximatePowers<half> { using ApproximatePowers::ApproximatePowers; };
template <> struct Powers<bfloat> : ApproximatePowers<bfloat> { using ApproximatePowers::ApproximatePowers; };

// log(1 + x), x >= 0: 2 atanh(t) of the mantissa, |t| <= 1/5.
DEVICE double atanh_tail(double q) {  // of 2 atanh(t) = 2 t + t q tail, with q = t * t
  double tail = 2.0 / 21.0;
  tail = fused(q, tail, 2.0 / 19.0);
  tail = fused(q, tail, 2.0 / 17.0);
  tail = fused(q, tail, 2.0 / 15.0);
  tail = fused(q, tail, 2.0 / 13.0);
  tail = fused(q, tail, 2.0 / 11.0);
  tail = fused(q, tail, 2.0 / 9.0);
  tail = fused(q, tail, 2.0 / 7.0);
  tail = fused(q, tail, 2.0 / 5.0);
  return fused(q, tail, 2.0 / 3.0);
}
DEVICE float atanh_tail(float q) {
  return fused(q, fused(q, fused(q, fused(q, 2.0f / 11.0f, 2.0f / 9.0f), 2.0f / 7.0f), 2.0f / 5.0f), 2.0f / 3.0f);
}
// u, not infinite, is 2^exponent times what is returned, between sqrt(1/2) and sqrt(2).
DEVICE double mantissa_of(double u, double& exponent) {
  const u64 bits = bits_of(u);
  const double m = double_of((bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
  const bool upper = m > 1.4142135623730951;
  exponent = (double)((int)(bits >> 52) - 1023 + upper);
  return upper ? m * 0.5 : m;
}
DEVICE float mantissa_of(float u, float& exponent) {
  const u32 bits = bits_of(u);
  const float m = float_of((bits & 0x007fffffu) | 0x3f800000u);
  const bool upper = m > 1.4142135f;
  exponent = (float)((int)(bits >> 23) - 127 + upper);
  return upper ? m * 0.5f : m;
}
template <typename A> DEVICE A log1p_of(A x, A inverse) {  // `inverse` is 1 / (1 + x), about
  const A u = (A)1 + x;
  if (!(u < Limits<A>::infinity())) return u;
  A exponent;
  const A m = mantissa_of(u, exponent), t = (m - (A)1) / (m + (A)1), q = t * t;
  const A log_u = fused(exponent, (A)0.6931471805599453, fused(t * q, atanh_tail(q), t + t));
  return fused(x - (u - (A)1), inverse, log_u);  // what 1 + x lost
}

// total + lost, with no error but the rounding of `lost` (Knuth's TwoSum).
template <typename A> struct Sum {
  A total, lost;
  DEVICE Sum() : total(0), lost(0) {}
  DEVICE void add(A term) {
    const A sum = total + term, back = sum - total;
    lost = lost + ((total - (sum - back)) + (term - back));
    total = sum;
  }
  DEVICE void scale(A factor) {
    total = total * factor;
    lost = lost * factor;
  }
  DEVICE double value() const { return (double)total + (double)lost; }
};
