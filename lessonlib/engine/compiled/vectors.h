// Vectors of 16 numbers, by the extension that GCC and Clang have for every CPU: what one cannot do at once, it does in
// steps. Only the instructions made for products of small numbers are asked for by name, where there are any.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")

typedef float Floats __attribute__((vector_size(64), may_alias));
typedef int32_t Ints __attribute__((vector_size(64), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), may_alias));
typedef uint16_t Halves __attribute__((vector_size(32), may_alias));  // bfloat16: the upper half of a float

constexpr int32_t UPPER = (int32_t)0xffff0000;
constexpr float LOG2E = 1.44269504f;

static inline Ints repeat(const void* p) {  // the 4 bytes at p, in every lane
    int32_t x;
    memcpy(&x, p, 4);
    return x - Ints{};
}
static inline Floats repeat(float x) { return (Floats)repeat(&x); }
static inline Floats load(const float* p) {
    Floats v;
    memcpy(&v, p, 64);
    return v;
}
static inline void store(float* p, Floats v, int64_t count = 16) { memcpy(p, &v, count < 16 ? 4 * count : 64); }
static inline Floats largest(Floats a, Floats b) { return a > b ? a : b; }
// a b + c, rounded once. Asked for by name: left to the compiler (-ffp-contract), one tile would round where another
// does not, and a token's numbers would depend on how many others run beside it.
static inline Floats fma(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    __m256 x[2], y[2], z[2];
    memcpy(x, &a, 64), memcpy(y, &b, 64), memcpy(z, &c, 64);
    UNROLL for (int i = 0; i < 2; i++) z[i] = _mm256_fmadd_ps(x[i], y[i], z[i]);
    memcpy(&c, z, 64);
    return c;
#elif defined(__ARM_FEATURE_FMA)
    UNROLL for (int i = 0; i < 16; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}
static inline Floats widen(Halves h) {
#ifdef __AVX512F__  // GCC takes two steps otherwise
    return (Floats)((Ints)_mm512_cvtepu16_epi32((__m256i)h) << 16);
#else
    return (Floats)(__builtin_convertvector(h, Ints) << 16);
#endif
}
static inline Ints round_half(Floats f) {  // to bfloat16, ties to even, as the upper half of each lane
    const Ints x = (Ints)f;
    return (x + 0x7fff + ((x >> 16) & 1)) & UPPER;
}
static inline Halves narrow(Floats f) { return __builtin_convertvector(round_half(f) >> 16, Halves); }
static inline int32_t total(Ints v) {
    int32_t sum = 0;
    UNROLL for (int i = 0; i < 16; i++) sum += v[i];
    return sum;
}
static inline Floats exp2(Floats x) {  // relative error about 2e-7, for x up to 127
    x = largest(x, repeat(-126.f));
    const Floats shifted = x + 12582912.f;  // 1.5 * 2^23 rounds: the integer is now in the lowest bits
    const Floats f = x - (shifted - 12582912.f);
    Floats p = repeat(1.54036684e-4f);
    for (float c : {1.33339043e-3f, 9.61812910e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f})
        p = fma(p, f, repeat(c));
    return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// sum + Σ w x of the 2 bfloat16 in each lane
static inline Floats dot2(Floats sum, Ints w, Ints x) {
#ifdef __AVX512BF16__
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)x);
#else
    return sum + (Floats)(w << 16) * (Floats)(x << 16) + (Floats)(w & UPPER) * (Floats)(x & UPPER);
#endif
}
// sum + Σ w x of the 4 bytes in each lane, w unsigned, x signed
static inline Ints dot4(Ints sum, Ints w, Ints x) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#elif defined(__AVX2__)
    __m256i s[2], a[2], b[2];
    memcpy(s, &sum, 64), memcpy(a, &w, 64), memcpy(b, &x, 64);
    UNROLL for (int i = 0; i < 2; i++) {  // even bytes, then odd ones, as 16-bit numbers
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(b[i], 8), 8), low = _mm256_set1_epi16(255);
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_and_si256(a[i], low), even));
        s[i] = _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_srli_epi16(a[i], 8), _mm256_srai_epi16(b[i], 8)));
    }
    memcpy(&sum, s, 64);
    return sum;
#else
    UNROLL for (int i = 0; i < 4; i++) sum += ((w >> 8 * i) & 255) * (x << (24 - 8 * i) >> 24);
    return sum;
#endif
}
