// The experts of several rows where each has but a few of them, and where its format is known: all warps of the
// card are there at once, and each takes strips of weights on its own, so that the next strip's come while
// one is multiplied, whichever expert it belongs to. A warp takes two strips at a time, which meet the same
// columns: of gate and of up, or two neighbours of an output matrix. It adds up the blocks of columns itself.

// Warps of a block, of which a multiprocessor holds one; those of few registers hide more of what they wait for. Where
// there is little shared memory, only some have room.
static const u32 ITEM_WARPS_IN = 24;
#if __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
static const u32 ITEM_WARPS_OUT = 24;
#else
static const u32 ITEM_WARPS_OUT = 16;
#endif

// ------------------------------------------------------------------ which vectors share an expert

// Vectors of an item, and the most choices that a block can list.
static const u32 ITEM_VECTORS = 3, MOST_CHOICES = 512;

// An item as the warps of a block look it up.
struct ItemVectors {
    u32 expert, vectors; // which they are: ten bits for each, above them how many
    u32 pairs[ITEM_VECTORS];
    float weights[ITEM_VECTORS];
    __device__ __forceinline__ u32 count() const { return vectors >> 30; }
};

// Where a block keeps what all rows have chosen while it lists the items; later it has the warps' pieces there.
struct Desk {
    u32 experts[MOST_CHOICES]; // to a whole number of 32, behind them none
    u32 others[MOST_CHOICES]; // the next of the same expert, ten bits for each, above them how many with the choice itself
    float weights[MOST_CHOICES];
    u32 leaders[MOST_CHOICES / 32];
};

// How many items there may be.
__device__ __forceinline__ u32 most_items(const HalfExpertsArgs &a) { return a.rows * a.e.used; }

// What the warps of a block share.
struct ItemList {
    u32 count, taken; // pairs of strips that warps have taken
    u32 unused[2];
    __device__ __forceinline__ ItemVectors *items() { return (ItemVectors *)(this + 1); }
    __device__ __forceinline__ u8 *behind(const HalfExpertsArgs &a) { return (u8 *)(items() + most_items(a)); }
};

// Lists the items in shared memory, whose vectors are those of rows or of pairs: every third choice of an expert leads
// one. Each block does this for itself, and all come to the same. Every thread of the block must call this.
__device__ __forceinline__ void list_items(const HalfExpertsArgs &a, bool of_rows, ItemList &list) {
    Desk &desk = *(Desk *)list.behind(a);
    u32 used = a.e.used, choices = a.rows * used, lane = threadIdx.x % 32;
    for (u32 c = threadIdx.x; c < (choices + 31) / 32 * 32; c += blockDim.x) {
        bool one = c < choices;
        desk.experts[c] = one ? __ldcg(a.e.picked + c) : ~0u, desk.weights[c] = one ? __ldcg(a.e.weights + c) : 0.0f;
    }
    __syncthreads();
    for (u32 first = threadIdx.x - lane; first < choices; first += blockDim.x) {
        u32 c = first + lane, expert = desk.experts[c], before = 0, members = 1, others = 0;
        for (u32 part = 0; part < choices; part += 32) {
            u32 same = 0; // a bit for each of 32 choices
#pragma unroll
            for (u32 i = 0; i < 32; i += 4) {
                uint4 four = *(const uint4 *)(desk.experts + part + i);
#pragma unroll
                for (u32 k = 0; k < 4; k++)
                    if (word(four, k) == expert) same |= 1u << (i + k);
            }
            u32 earlier = part < first ? FULL : part > first ? 0 : (1u << lane) - 1;
            before += __popc(same & earlier);
            if (part == first) same &= ~(1u << lane);
            for (same &= ~earlier; same && members < ITEM_VECTORS; same &= same - 1) others |= (part + __ffs(same) - 1) << 10 * (members - 1), members++;
        }
        if (c < choices) desk.others[c] = members << 30 | others;
        u32 leaders = __ballot_sync(FULL, c < choices && before % ITEM_VECTORS == 0);
        if (lane == 0) desk.leaders[first / 32] = leaders;
    }
    __syncthreads();
    u32 count = 0;
    for (u32 first = 0; first < choices; first += 32) {
        u32 c = first + lane, leaders = desk.leaders[first / 32], at = count + __popc(leaders & (1u << lane) - 1);
        count += __popc(leaders);
        // Each warp counts all, and writes its own.
        if (first / 32 % (blockDim.x / 32) != threadIdx.x / 32 || !(leaders >> lane & 1)) continue;
        u32 others = desk.others[c], vectors = others >> 30 << 30;
        for (u32 v = 0; v < vectors >> 30; v++) {
            u32 o = v == 0 ? c : others >> 10 * (v - 1) & 1023, r = o / used, pair = o + r;
            list.items()[at].pairs[v] = pair, list.items()[at].weights[v] = desk.weights[o];
            vectors |= (of_rows ? r : pair) << 10 * v;
        }
        list.items()[at].expert = desk.experts[c], list.items()[at].vectors = vectors;
    }
    if (threadIdx.x == 0) list.count = count, list.taken = 0;
    __syncthreads();
}

// ------------------------------------------------------------------ strips on their way

// Which pair of strips of which item a warp takes next.
struct ItemTask {
    u32 both;
    static const u32 NONE = ~0u;
    // The block's next: who is quick takes more. Neighbours among the last go to different multiprocessors.
    __device__ __forceinline__ static ItemTask take(ItemList &list, u32 strips) {
        u32 k = 0;
        if (threadIdx.x % 32 == 0) k = atomicAdd(&list.taken, 1);
        u32 n = __shfl_sync(FULL, k, 0) * gridDim.x + blockIdx.x;
        return {n < list.count * strips ? n / strips << 16 | n % strips : NONE};
    }
    __device__ __forceinline__ bool none() const { return both == NONE; }
    __device__ __forceinline__ u32 item() const { return both >> 16; }
    __device__ __forceinline__ u32 strip() const { return both & 0xffff; }
};

// What a lane does with a block of 256 columns, of which a vector's take a `line` in shared memory, and have a `pitch` in
// memory: `begin` a pair of strips, `multiply` its blocks.
template <int F> struct ItemBlock;

// What a warp has for its pieces; two times a tile of either strip, and behind them the vectors' columns.
template <int F> constexpr u32 ITEM_SLOT = 2 * TILE_BYTES<F> + ITEM_VECTORS * ItemBlock<F>::line;

// What a warp does: `strip_of(expert, strip)` is where the first of two strips begins, the other lies so many bytes
// `apart`; `x` are all vectors, which `ready` waits for; `done(item, strip, lanes)` takes what has come out.
template <int F, class StripOf, class Ready, class Done>
__device__ __forceinline__ void walk_items(ItemList &list, u32 strips, u32 blocks, u64 apart, const u8 *x, u32 room, ItemBlock<F> lanes, StripOf strip_of, Ready ready, Done done) {
    const u32 line = ItemBlock<F>::line, pitch = ItemBlock<F>::pitch;
    u32 lane = threadIdx.x % 32, to = room + lane * 16, to_lines = to + 2 * TILE_BYTES<F>, left = 0, slot = 0, vectors = 0;
    const u8 *from = nullptr;
    ItemTask ahead = {ItemTask::NONE};
    keep_at_hand(to), keep_at_hand(to_lines);
    // A piece whose weights have been asked for, and the columns that belong to it: whose, and which.
    struct Asked {
        ItemTask task;
        u32 vectors, bytes;
    };
    auto ask = [&](u32 slot) -> Asked {
        if (left == 0) {
            ahead = ItemTask::take(list, strips);
            if (ahead.none()) return {ahead, 0, 0};
            const ItemVectors &item = list.items()[ahead.item()];
            from = strip_of(item.expert, ahead.strip()) + lane * 16, vectors = item.vectors, left = blocks;
        }
        ask_line<TILE_BYTES<F>>(to + slot, from);
        ask_line<TILE_BYTES<F>>(to + slot + TILE_BYTES<F>, from + apart);
        from += TILE_BYTES<F>;
        return {ahead, vectors, (blocks - left--) * pitch + lane * 16};
    };
    auto ask_columns = [&](const Asked &of, u32 slot) {
        auto ask_vector = [&](u32 v) {
            if (lane < line / 16) copy_further<0>(to_lines + slot + v * line, x + ((of.vectors >> 10 * v & 1023) * (blocks * pitch) + of.bytes));
        };
        // Most have one vector.
        if (of.vectors >> 30 > 0) {
            ask_vector(0);
            if (of.vectors >> 30 > 1) {
                ask_vector(1);
                if (of.vectors >> 30 > 2) ask_vector(2);
            }
        }
        copies_begun();
    };
    Asked first = ask(0), second = ask(ITEM_SLOT<F>);
    ready();
    ask_columns(first, 0);
    ask_columns(second, ITEM_SLOT<F>);
    // Of the pieces under way: whose they are.
    ItemTask here = first.task, then = second.task;
    while (!here.none()) {
        ItemTask task = here;
        lanes.begin(list.items()[task.item()].count());
#pragma unroll 1
        for (u32 block = 0; block < blocks; block++) {
            copies_done<1>();
            __syncwarp();
            lanes.multiply(slot);
            __syncwarp();
            Asked asked = ask(slot);
            ask_columns(asked, slot);
            here = then, then = asked.task;
            slot ^= ITEM_SLOT<F>;
        }
        done(list.items()[task.item()], task.strip(), lanes);
    }
}

// ------------------------------------------------------------------ the inner vectors

template <> struct ItemBlock<IQ2_XXS> {
    static const u32 line = BYTE_LINE, pitch = BYTE_LINE;

    u32 codes, sizes, unit, lines, column, count;
    ByteRuns runs;
    // Of each vector the value of row g + t % 2 * 8 of strip t / 2.
    float total[ITEM_VECTORS];

    __device__ __forceinline__ ItemBlock(u32 room, const Iq2Digits &table)
        : codes(room + threadIdx.x % 32 * 16), sizes(room + 16 * Widths<IQ2_XXS>::codes + threadIdx.x % 32 / 4 * Widths<IQ2_XXS>::scales + threadIdx.x % 4), unit(room + iq2_unit()),
          lines(room + 2 * TILE_BYTES<IQ2_XXS>), column(table.column()) {
        keep_at_hand(codes), keep_at_hand(sizes), keep_at_hand(unit), keep_at_hand(column);
    }

    __device__ __forceinline__ void begin(u32 vectors) {
        count = vectors;
#pragma unroll
        for (u32 v = 0; v < ITEM_VECTORS; v++) total[v] = 0.0f;
    }

    template <int V> __device__ __forceinline__ void vectors(u32 slot, u32 first) {
        u32 at = lines + slot + first * line;
        int part[V][4];
        runs.load<V>(at);
        iq2_parts<V>(codes + slot, sizes + slot, column, runs, part);
        float of_row = f16_to_f32((u16)staged2(unit + slot));
#pragma unroll
        for (int v = 0; v < V; v++) {
            float of_vector = __uint_as_float(staged4(at + v * line + BYTE_UNIT)), sum = (float)sum_of_lanes(part[v]);
            if (V == 1 && first > 0)
                total[2] = __fmaf_rn(__fmul_rn(sum, of_row), of_vector, total[2]);
            else
                total[v] = __fmaf_rn(__fmul_rn(sum, of_row), of_vector, total[v]);
        }
        if (V > 1) runs.clear(); // one vector leaves columns alone that two have
    }

    __device__ __forceinline__ void multiply(u32 slot) {
        static_assert(ITEM_VECTORS == 3, "two and one");
        u32 first = 0;
        if (count > 1) vectors<2>(slot, 0), first = 2;
        if (count % 2) vectors<1>(slot, first);
    }
};

// Strip by strip of gate and of up.
extern "C" __global__ void __launch_bounds__(32 * ITEM_WARPS_IN, 1) half_experts_in_8_iq2(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    const ExpertsArgs &e = a.e;
    Iq2Digits &table = *(Iq2Digits *)shared_memory;
    ItemList &list = *(ItemList *)(&table + 1);
    table.fill();
    await();
    invite(); // now, so that the next kernel's blocks know what has been chosen when they begin
    list_items(a, true, list);
    u32 blocks = e.hidden / 256, room = shared_address(list.behind(a)) + threadIdx.x / 32 * 2 * ITEM_SLOT<IQ2_XXS>;
    auto strip_of = [&](u32 expert, u32 strip) { return e.gate.first.codes + e.gate.codes_stride * expert + (u64)(strip * blocks) * TILE_BYTES<IQ2_XXS>; };
    auto done = [&](const ItemVectors &item, u32 strip, const ItemBlock<IQ2_XXS> &lanes) {
        u32 lane = threadIdx.x % 32, row = strip * 16 + lane / 4 + lane % 2 * 8;
#pragma unroll
        for (u32 v = 0; v < ITEM_VECTORS; v++) {
            if (v >= item.count()) break;
            float mine = lanes.total[v] * unscale(IQ2_XXS), up = __shfl_xor_sync(FULL, mine, 2);
            if (lane % 4 < 2 && row < e.inner) a.middle[(u64)item.pairs[v] * e.inner + row] = half_of(swiglu(mine, up, e.limit) * item.weights[v]);
        }
    };
    walk_items<IQ2_XXS>(list, (e.inner + 15) / 16, blocks, e.up.first.codes - e.gate.first.codes, a.numbers.lines, room, ItemBlock<IQ2_XXS>(room, table), strip_of, [] {}, done);
}

// ------------------------------------------------------------------ the outputs

template <> struct ItemBlock<Q2_K> {
    static const u32 line = INNER_LINE, pitch = 512;

    u32 tiles, lines, unit, count;
    InnerRuns runs;
    // Of vector t those of rows g and g + 8 of both strips.
    float total[2][2];

    explicit __device__ __forceinline__ ItemBlock(u32 room)
        : tiles(room), lines(room + 2 * TILE_BYTES<Q2_K>), unit(lines + min(threadIdx.x % 4, ITEM_VECTORS - 1) * line + INNER_UNIT) {}

    __device__ __forceinline__ void begin(u32 vectors) {
        count = vectors;
        total[0][0] = total[0][1] = total[1][0] = total[1][1] = 0.0f;
    }

    __device__ __forceinline__ void multiply(u32 slot) {
        runs.load(lines + slot, count);
        float of_vector = __uint_as_float(staged4(unit + slot));
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
            float value[2];
            q2_block(tiles + slot + m * TILE_BYTES<Q2_K>, runs, value);
#pragma unroll
            for (u32 r = 0; r < 2; r++) total[m][r] = __fmaf_rn(value[r], of_vector, total[m][r]);
        }
    }
};

static_assert(sizeof(Desk) <= 2 * ITEM_SLOT<IQ2_XXS> && sizeof(Desk) <= 2 * ITEM_SLOT<Q2_K>, "the list is made where the first warp's pieces will be");

// Two neighbouring strips after another. The first weights are asked for while the last inner vectors are made: what
// has been chosen is known, because one of the kernels before, whose successors all have begun, invited once it was there.
extern "C" __global__ void __launch_bounds__(32 * ITEM_WARPS_OUT, 1) half_experts_out_8_q2(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    const ExpertsArgs &e = a.e;
    ItemList &list = *(ItemList *)shared_memory;
    list_items(a, false, list);
    u32 blocks = e.inner / 256, room = shared_address(list.behind(a)) + threadIdx.x / 32 * 2 * ITEM_SLOT<Q2_K>;
    auto strip_of = [&](u32 expert, u32 strip) { return e.down.first.codes + e.down.codes_stride * expert + (u64)(2 * strip * blocks) * TILE_BYTES<Q2_K>; };
    auto ready = [] {
        await();
        invite();
    };
    auto done = [&](const ItemVectors &item, u32 strip, const ItemBlock<Q2_K> &lanes) {
        u32 n = threadIdx.x % 4, row = strip * 32 + threadIdx.x % 32 / 4;
        if (n >= item.count()) return;
#pragma unroll
        for (u32 k = 0; k < 4; k++) a.parts[(u64)item.pairs[n] * e.hidden + row + 8 * k] = lanes.total[k / 2][k % 2];
    };
    walk_items<Q2_K>(list, e.hidden / 32, blocks, blocks * TILE_BYTES<Q2_K>, (const u8 *)a.middle, room, ItemBlock<Q2_K>(room), strip_of, ready, done);
}
