// A warp moves a stretch of a row between memory and registers, 16 bytes a thread at a time, wherever the row begins.
//
// A pack is V = 16 / sizeof(logit) neighbouring classes; thread `lane` holds packs lane, 32 + lane, .. of the stretch.
// Which thread holds a class hangs on the class alone, never on the address, so that bits never do. Where a row does
// not begin at a multiple of 16 bytes, aligned packs are moved and neighbouring threads hand each other the rest.

template <int WORDS> struct Words { u32 w[WORDS]; };

// Moves words STEP places down, and by smaller steps as the bits of `skip` say. Selects: registers have no address.
template <int STEP, int COUNT> DEVICE void move_down(u32 (&w)[COUNT], int skip) {
  const bool move = skip & (4 * STEP);
#pragma unroll
  for (int i = 0; i + STEP < COUNT; ++i) w[i] = move ? w[i + STEP] : w[i];
  if constexpr (STEP > 1) move_down<STEP / 2>(w, skip);
}
// Bytes skip.. of the words in `first` followed by those in `second`.
template <int WORDS> DEVICE Words<WORDS> behind(Words<WORDS> first, Words<WORDS> second, int skip) {
  u32 w[2 * WORDS];
#pragma unroll
  for (int i = 0; i < WORDS; ++i) w[i] = first.w[i], w[WORDS + i] = second.w[i];
  move_down<WORDS / 2>(w, skip);
  Words<WORDS> found;
#pragma unroll
  for (int i = 0; i < WORDS; ++i) found.w[i] = skip & 2 ? funnel(w[i], w[i + 1], 16) : w[i];
  return found;
}
template <int WORDS> DEVICE Words<WORDS> words_from_lane(Words<WORDS> mine, int lane) {
#pragma unroll
  for (int i = 0; i < WORDS; ++i) mine.w[i] = from_lane(mine.w[i], lane);
  return mine;
}

DEVICE Words<4> load_words(const char* p) {
  const Word4 q = load16(p);
  return {{q.w[0], q.w[1], q.w[2], q.w[3]}};
}
DEVICE void store_words(char* p, Words<2> v) { store8(p, {{v.w[0], v.w[1]}}); }
DEVICE void store_words(char* p, Words<4> v) { store16(p, {{v.w[0], v.w[1], v.w[2], v.w[3]}}); }
DEVICE void store_words(char* p, Words<8> v) {
  store16(p, {{v.w[0], v.w[1], v.w[2], v.w[3]}});
  store16(p + 16, {{v.w[4], v.w[5], v.w[6], v.w[7]}});
}

// ---- numbers of 2, 4 or 8 bytes in words

DEVICE float item_of(const u32* w, int i, float*) { return float_of(w[i]); }
DEVICE double item_of(const u32* w, int i, double*) { return double_of((u64)w[2 * i + 1] << 32 | w[2 * i]); }
DEVICE half item_of(const u32* w, int i, half*) { return {(u16)(w[i / 2] >> (16 * (i % 2)))}; }
DEVICE bfloat item_of(const u32* w, int i, bfloat*) { return {(u16)(w[i / 2] >> (16 * (i % 2)))}; }
DEVICE void put_item(u32* w, int i, float x) { w[i] = bits_of(x); }
DEVICE void put_item(u32* w, int i, double x) { w[2 * i] = (u32)bits_of(x), w[2 * i + 1] = (u32)(bits_of(x) >> 32); }
DEVICE void put_bits(u32* w, int i, u16 bits) { w[i / 2] = i % 2 ? w[i / 2] | (u32)bits << 16 : bits; }
DEVICE void put_item(u32* w, int i, half x) { put_bits(w, i, x.bits); }
DEVICE void put_item(u32* w, int i, bfloat x) { put_bits(w, i, x.bits); }

template <typename T, int V, typename A> DEVICE void unpack(Words<4> words, int column, int classes, A* v) {
#pragma unroll
  for (int j = 0; j < V; ++j)
    v[j] = column + j < classes ? (A)decode(item_of(words.w, j, (T*)0)) : minus_infinity<A>();
}

// ---- a stretch of PACKS * 32 packs from class `first` on; classes past the row are -inf

template <typename T, int PACKS, typename A>
DEVICE void load_stretch(const T* row, int first, int classes, int lane, A* v) {
  const int V = 16 / sizeof(T);
  const char* begin = (const char*)(row + first);
  const int skip = (int)((u64)begin & 15);
  const char* window = begin - skip;
  const i64 end = (i64)(classes - first) * (int)sizeof(T) + skip;  // of the row, from `window` on
  Words<4> pack[PACKS];
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const i64 at = (i64)(k * 32 + lane) * 16;
    pack[k] = at < end ? load_words(window + at) : Words<4>{};
  }
  if (skip) {  // the same for all threads of the row
    Words<4> beyond = {};
    const i64 at = (i64)PACKS * 32 * 16;
    if (lane == 0 && at < end) beyond = load_words(window + at);
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const Words<4> later = k + 1 < PACKS ? pack[k + 1 < PACKS ? k + 1 : k] : beyond;
      pack[k] = behind(pack[k], words_from_lane(lane == 0 ? later : pack[k], (lane + 1) % 32), skip);
    }
  }
#pragma unroll
  for (int k = 0; k < PACKS; ++k) unpack<T, V>(pack[k], first + (k * 32 + lane) * V, classes, v + k * V);
}

// Writes value(0..), V numbers a pack, of the type O, to the row `out`.
template <typename O, int V, int PACKS, typename Value>
DEVICE void store_stretch(O* out, int first, int classes, int lane, Value value) {
  const int BYTES = V * sizeof(O), ALIGNED = BYTES < 16 ? BYTES : 16;
  typedef Words<BYTES / 4> Pack;
  const int behind_bytes = (int)((u64)(out + first) & (ALIGNED - 1));
  const int spill = behind_bytes / (int)sizeof(O);  // numbers that the next thread writes
  Pack before = {};
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    Pack mine;
#pragma unroll
    for (int j = 0; j < V; ++j) put_item(mine.w, j, Encode<O>::of(value(k * V + j)));
    Pack pack = mine;
    if (spill) pack = behind(words_from_lane(lane == 31 ? before : mine, (lane + 31) % 32), mine, BYTES - behind_bytes);
    const int column = first + (k * 32 + lane) * V - spill;
    if (column >= first && column + V <= classes) {
      store_words((char*)(out + column), pack);
    } else {
#pragma unroll
      for (int j = 0; j < V; ++j)
        if (column + j >= first && column + j < classes) store(out + column + j, item_of(pack.w, j, (O*)0));
    }
    before = mine;
  }
  const int rest = first + PACKS * 32 * V - spill;  // what the last thread still holds
  if (spill && lane == 31) {
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (j >= V - spill && rest + j - (V - spill) < classes)
        store(out + rest + j - (V - spill), item_of(before.w, j, (O*)0));
  }
}
