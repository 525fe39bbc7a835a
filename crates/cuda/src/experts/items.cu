// The experts of several rows where each has but a few of them, and where its format is known: all warps of the
// card are there at once, and each walks over strips of weights on its own, so that the next strip's come while
// one is multiplied, whichever expert it belongs to. A warp takes two strips at a time, which meet the same
// columns: of gate and of up, or two neighbours of an output matrix. It adds up the segments itself.

// Warps of a block, of which a multiprocessor holds one; those of few registers hide more of what they wait for.
static const u32 ITEM_WARPS_IN = 20, ITEM_WARPS_OUT = 16;
// Vectors of an item.
static const int ITEM_VECTORS = 3;

// An item as the warps of a block look it up.
struct ItemVectors {
    u32 expert, vectors; // which they are: ten bits for each, above them how many
    u32 pairs[ITEM_VECTORS];
    float weights[ITEM_VECTORS];
    __device__ __forceinline__ u32 count() const { return vectors >> 30; }
};

// What a warp has for its pieces: two times a tile of either strip, and behind them the vectors' columns.
template <int F> constexpr u32 ITEM_SLOT = 2 * TILE_BYTES<F> + ITEM_VECTORS * NEAR_LINE;

// As `staged16`, for those lanes that need it.
__device__ __forceinline__ void staged16_if(uint4 &v, u32 at, bool needed) {
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.shared.v4.u32 {%0, %1, %2, %3}, [%4]; }"
                 : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "r"(at), "r"((u32)needed));
}

// Lists the items in shared memory, whose vectors are those of rows or of pairs; every thread of the block must
// call this.
__device__ __forceinline__ u32 list_items(const HalfExpertsArgs &a, bool of_rows, ItemVectors *list) {
    u32 count = a.items[0].count, used = a.e.used;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) {
        const Item item = a.items[1 + i];
        u32 vectors = item.count << 30;
        for (u32 v = 0; v < item.count; v++) {
            u32 pair = a.order[item.first + v], r = pair / (used + 1);
            list[i].pairs[v] = pair, list[i].weights[v] = a.e.weights[r * used + pair - r * (used + 1)];
            vectors |= (of_rows ? r : pair) << 10 * v;
        }
        list[i].expert = item.expert, list[i].vectors = vectors;
    }
    __syncthreads();
    return count;
}

// One pair of strips after another: the `step`th of all items' is the next. An item and its strip share a register.
struct ItemWalk {
    u32 at, strips, step;
    __device__ __forceinline__ ItemWalk(u32 first, u32 strips, u32 step) : at(both(first, strips)), strips(strips), step(both(step, strips)) {}
    __device__ __forceinline__ static u32 both(u32 n, u32 strips) { return n / strips << 16 | n % strips; }
    __device__ __forceinline__ u32 item() const { return at >> 16; }
    __device__ __forceinline__ u32 strip() const { return at & 0xffff; }
    __device__ __forceinline__ void next() {
        at += step;
        if (strip() >= strips) at += 0x10000 - strips;
    }
};

// What a warp does with `count` items: `strip_of(expert, strip)` is where the first of two strips begins, the other
// lies so many bytes `apart`; `x` are all vectors; `done(item, strip, sums)` takes what has come out.
template <int F, class StripOf, class Done>
__device__ __forceinline__ void walk_items(const ItemVectors *list, u32 count, u32 strips, u32 blocks, u64 apart, const u16 *x, u8 *room, u32 column, StripOf strip_of, Done done) {
    const Matrix not_needed = {};
    u32 lane = threadIdx.x % 32, to = shared_address(room), warps = blockDim.x / 32;
    // Neighbours among the last strips go to different multiprocessors.
    ItemWalk here(threadIdx.x / 32 * gridDim.x + blockIdx.x, strips, warps * gridDim.x), ahead = here;
    // Where the lane copies, and where what it reads of a tile begins: a row has 64 bytes of codes.
    static_assert(Widths<F>::codes == 64 && Widths<F>::swap == 0, "four lanes read a row");
    u32 mine = to + lane * 16, block_ahead = 0, slot = 0, vectors = 0;
    const u8 *from = nullptr;
    auto ask = [&](u32 slot) {
        if (ahead.item() < count) {
            if (block_ahead == 0) {
                const ItemVectors &item = list[ahead.item()];
                from = strip_of(item.expert, ahead.strip());
                vectors = item.vectors;
            }
            u32 at = mine + slot * ITEM_SLOT<F>, near = to + slot * ITEM_SLOT<F> + 2 * TILE_BYTES<F> + Near::place(8 * lane);
            u32 columns = block_ahead * 512 + lane * 16;
            auto ask_vector = [&](u32 v) { copy_further<0>(near + v * NEAR_LINE, (const u8 *)x + ((vectors >> 10 * v & 1023) * (blocks * 512) + columns)); };
            ask_line<TILE_BYTES<F>>(at, from + lane * 16);
            ask_line<TILE_BYTES<F>>(at + TILE_BYTES<F>, from + apart + lane * 16);
            from += TILE_BYTES<F>;
            // Most have one vector.
            ask_vector(0);
            if (vectors >> 30 > 1) {
                ask_vector(1);
                if (vectors >> 30 > 2) ask_vector(2);
            }
            if (++block_ahead == blocks) block_ahead = 0, ahead.next();
        }
        copies_begun();
    };
    ask(0);
    ask(1);
    Span<F> span(to, to + 16 * Widths<F>::codes, lane / 4, Codes<F>::lane(lane % 4), nullptr);
    span.codes = span.traded = mine;
    u32 vector = to + 2 * TILE_BYTES<F> + lane / 4 * NEAR_LINE, place = Near::place(Codes<F>::start(0, lane % 4));
    // Lanes whose vector does not exist keep what they have: what comes out is not looked at.
    uint4 low = {}, high = {};
    for (; here.item() < count; here.next()) {
        bool needed = lane / 4 < list[here.item()].count();
        float total[2][4] = {}, sum[2][4] = {};
#pragma unroll 1
        for (u32 block = 0; block < blocks; block++) {
            copies_done<1>();
            __syncwarp();
            Span<F> at[2] = {span.further(slot * ITEM_SLOT<F>), span.further(slot * ITEM_SLOT<F> + TILE_BYTES<F>)};
            u32 near = vector + slot * ITEM_SLOT<F>;
            Tile<F> tiles[2];
            Coming<F> coming[2];
#pragma unroll
            for (int m = 0; m < 2; m++) tiles[m].begin(at[m]);
            tiles[0].fetch(at[0], 0), coming[0].ask(tiles[0], column, 0);
#pragma unroll
            for (u32 s = 0; s < 4; s++) {
                u32 chunk = near + (place ^ Near::place(Codes<F>::start(s, 0)));
                staged16_if(low, chunk, needed), staged16_if(high, chunk + 16, needed);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    // What must be looked up is asked for while the other strip is multiplied.
                    u32 next = s + m;
                    if (next < 4) tiles[1 - m].fetch(at[1 - m], next), coming[1 - m].ask(tiles[1 - m], column, next);
                    u32 a[8], b[8];
                    coming[m].take(not_needed, tiles[m], s, a, b);
                    mma_run(sum[m], a, b, low, high);
                }
            }
            __syncwarp();
            ask(slot);
            slot ^= 1;
            if (block % 2 == 1 || block + 1 == blocks) {
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int j = 0; j < 4; j++) total[m][j] += sum[m][j], sum[m][j] = 0.0f;
            }
        }
        done(list[here.item()], here.strip(), total);
    }
}

// How many items there may be.
__device__ __forceinline__ u32 most_items(const HalfExpertsArgs &a) { return a.rows * a.e.used; }

// The inner vectors: strip by strip of gate and of up.
extern "C" __global__ void __launch_bounds__(32 * ITEM_WARPS_IN, 1) half_experts_in_8_iq2(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    const ExpertsArgs &e = a.e;
    Iq2Table *table = (Iq2Table *)shared_memory;
    ItemVectors *list = (ItemVectors *)behind_table(shared_memory, IQ2_XXS);
    fill(*table);
    await();
    u32 count = list_items(a, true, list), blocks = e.hidden / 256;
    u8 *room = (u8 *)(list + most_items(a)) + threadIdx.x / 32 * 2 * ITEM_SLOT<IQ2_XXS>;
    auto strip_of = [&](u32 expert, u32 strip) { return e.gate.first.codes + e.gate.codes_stride * expert + (u64)(strip * blocks) * TILE_BYTES<IQ2_XXS>; };
    auto done = [&](const ItemVectors &item, u32 strip, const float (&total)[2][4]) {
        const float scale = unscale(IQ2_XXS);
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 n = threadIdx.x % 4 * 2 + j, row = strip * 16 + threadIdx.x % 32 / 4;
            if (n >= item.count()) continue;
#pragma unroll
            for (u32 k = 0; k < 2; k++, row += 8) {
                if (row >= e.inner) continue;
                float m = swiglu(total[0][2 * k + j] * scale, total[1][2 * k + j] * scale, e.limit) * item.weights[n];
                a.middle[(u64)item.pairs[n] * e.inner + row] = half_of(m);
            }
        }
    };
    walk_items<IQ2_XXS>(list, count, (e.inner + 15) / 16, blocks, e.up.first.codes - e.gate.first.codes, a.x, room, column_of(table), strip_of, done);
}

// The outputs: two neighbouring strips after another.
extern "C" __global__ void __launch_bounds__(32 * ITEM_WARPS_OUT, 1) half_experts_out_8_q2(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    invite();
    const ExpertsArgs &e = a.e;
    ItemVectors *list = (ItemVectors *)shared_memory;
    await();
    u32 count = list_items(a, false, list), blocks = e.inner / 256;
    u8 *room = (u8 *)(list + most_items(a)) + threadIdx.x / 32 * 2 * ITEM_SLOT<Q2_K>;
    auto strip_of = [&](u32 expert, u32 strip) { return e.down.first.codes + e.down.codes_stride * expert + (u64)(2 * strip * blocks) * TILE_BYTES<Q2_K>; };
    auto done = [&](const ItemVectors &item, u32 strip, const float (&total)[2][4]) {
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
            u32 n = threadIdx.x % 4 * 2 + j, row = strip * 32 + threadIdx.x % 32 / 4;
            if (n >= item.count()) continue;
#pragma unroll
            for (u32 k = 0; k < 4; k++, row += 8)
                a.parts[(u64)item.pairs[n] * e.hidden + row] = total[k / 2][k % 2 * 2 + j] * unscale(Q2_K);
        }
    };
    walk_items<Q2_K>(list, count, e.hidden / 32, blocks, blocks * TILE_BYTES<Q2_K>, a.middle, room, 0, strip_of, done);
}
