// The rows of the largest scores: a threshold is found digit by digit, then a thread writes down which of
// its rows pass. It looks after neighbouring rows and holds their scores in registers, unless there are too
// many. The host gives a block as many threads as there are quads of scores, within these bounds.

static const u32 TOP_THREADS = 1024, TOP_FEWEST = 256;
static const u32 TOP_QUADS = 8; // of four scores, that a thread can hold
// Bits of a digit, and how many digits there are: three of them make a score.
static const u32 DIGIT = 11, DIGITS = 1 << DIGIT;

struct TopArgs {
    const Row *rows;
    const float *scores;
    u32 *chosen; // [rows][top_k], in ascending order
    u32 capacity, top_k, first, unused;
};

// Floats as unsigned numbers of the same order.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Four of them from the `first`th on; there are other ways for them to lie (`together.cu`).
__device__ __forceinline__ uint4 four_ordered(const float *scores, u32 first) {
    float4 v = *(const float4 *)(scores + first);
    return make_uint4(ordered(v.x), ordered(v.y), ordered(v.z), ordered(v.w));
}

// A thread's scores, as numbers of their order: in registers.
template <u32 QUADS> struct HeldScores {
    u32 begin, count, held[4 * QUADS];

    template <class From> __device__ __forceinline__ HeldScores(From scores, u32 begin, u32 end) : begin(begin), count(end - begin) {
#pragma unroll
        for (u32 i = 0; i < QUADS; i++) {
            // There is room beyond the last score; what lies there is not counted.
            uint4 v = 4 * i < count ? four_ordered(scores, begin + 4 * i) : make_uint4(0, 0, 0, 0);
            held[4 * i] = v.x, held[4 * i + 1] = v.y, held[4 * i + 2] = v.z, held[4 * i + 3] = v.w;
        }
    }

    // Does something with each, in their order.
    template <class Body> __device__ __forceinline__ void each(Body body) const {
#pragma unroll
        for (u32 i = 0; i < QUADS && 4 * i < count; i++)
#pragma unroll
            for (u32 e = 4 * i; e < 4 * i + 4; e++)
                if (e < count) body(e, held[e]);
    }
};

// The same, read each time.
struct ReadScores {
    const float *scores;
    u32 begin, count;

    __device__ __forceinline__ ReadScores(const float *all, u32 begin, u32 end) : scores(all + begin), begin(begin), count(end - begin) {}

    template <class Body> __device__ __forceinline__ void each(Body body) const {
        for (u32 i = 0; i < count; i++) body(i, ordered(scores[i]));
    }
};

struct TopShared {
    u32 count[DIGITS]; // of scores with a digit; zero between digits
    u64 warp_sums[32];
    uint4 warp_counts[TOP_FEWEST / 128];
    u32 prefix, wanted, exact;
};

// What is left of a score without its last `shift` bits, up to all of them.
__device__ __forceinline__ u32 leading(u32 key, u32 shift) { return __funnelshift_rc(key, 0, shift); }

// Finds the digit at which the wanted number is reached, from the top; eight digits to a thread.
__device__ __forceinline__ void find_digit(TopShared &m, u32 prefix, u32 width, u32 wanted) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, mine = 0, own[8] = {};
    bool looks = threadIdx.x < TOP_FEWEST;
    u32 before = 0;
    if (looks) {
        uint4 *counts = (uint4 *)m.count + (DIGITS / 4 - 2 - 2 * threadIdx.x), high = counts[1], low = counts[0];
        counts[0] = counts[1] = make_uint4(0, 0, 0, 0);
        own[0] = high.w, own[1] = high.z, own[2] = high.y, own[3] = high.x;
        own[4] = low.w, own[5] = low.z, own[6] = low.y, own[7] = low.x;
#pragma unroll
        for (int i = 0; i < 8; i++) mine += own[i];
        before = mine;
#pragma unroll
        for (int o = 1; o < 32; o *= 2) {
            u32 other = __shfl_up_sync(FULL, before, o);
            if (lane >= (u32)o) before += other;
        }
        if (lane == 31) ((u32 *)m.warp_counts)[warp] = before;
        before -= mine;
    }
    __syncthreads();
    if (looks) {
        uint4 low = m.warp_counts[0], high = m.warp_counts[1];
        u32 warps[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
        for (u32 w = 0; w < 7; w++) before += w < warp ? warps[w] : 0;
        u32 after = before + mine, sum = before, digit = DIGITS - 1 - 8 * threadIdx.x;
        if (before < wanted && after >= wanted) {
#pragma unroll
            for (u32 i = 0; i < 7; i++) {
                sum += own[i];
                if (sum < wanted)
                    before = sum, digit--;
                else
                    after = min(after, sum);
            }
            m.prefix = prefix << width | digit;
            m.wanted = wanted - before;
            m.exact = after == wanted;
        }
    }
    __syncthreads();
}

// A thread looks after `each` rows.
template <class Scores, class From> __device__ __forceinline__ void choose_top(TopShared &m, From scores, u32 visible, u32 each, u32 wanted, u32 *chosen) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Scores mine(scores, min(threadIdx.x * each, visible), min((threadIdx.x + 1) * each, visible));
    // Until all of a score's bits have been looked at, or all scores that begin like the threshold are wanted.
    u32 prefix = 0, shift = 32;
    bool exact = false;
#pragma unroll 1
    while (shift > 0 && !exact) {
        u32 width = min(shift, DIGIT), next = shift - width;
        mine.each([&](u32, u32 key) {
            if (leading(key, shift) == prefix) atomicAdd(&m.count[key >> next & ((1u << width) - 1)], 1);
        });
        __syncthreads();
        find_digit(m, prefix, width, wanted);
        prefix = m.prefix, wanted = m.wanted, exact = m.exact, shift = next;
    }
    // Everything above the threshold, and the first `wanted` that equal it: how many of both each
    // thread has, above in the upper half, and how many come before.
    u64 own = 0;
    mine.each([&](u32, u32 key) { own += leading(key, shift) > prefix ? 1ull << 32 : leading(key, shift) == prefix; });
    u64 before = own;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        u64 other = __shfl_up_sync(FULL, before, o);
        if (lane >= (u32)o) before += other;
    }
    if (lane == 31) m.warp_sums[warp] = before;
    before -= own;
    __syncthreads();
    u64 warps = lane < warp ? m.warp_sums[lane] : 0;
    u32 above = (u32)(before >> 32) + __reduce_add_sync(FULL, (u32)(warps >> 32));
    u32 equal = (u32)before + __reduce_add_sync(FULL, (u32)warps);
    mine.each([&](u32 i, u32 key) {
        u32 at = above + min(equal, wanted), kept = leading(key, shift);
        if (kept > prefix || (kept == prefix && equal < wanted)) chosen[at] = mine.begin + i;
        above += kept > prefix, equal += kept == prefix;
    });
}

extern "C" __global__ void __launch_bounds__(TOP_THREADS) index_top(const TopArgs a) {
    __shared__ __align__(16) TopShared m;
    // What the host tells of a round lies there before its first kernel.
    u32 r = a.first + blockIdx.x, visible = csa_visible(a.rows[r].position), wanted = a.top_k;
    const float *scores = a.scores + (u64)blockIdx.x * a.capacity;
    u32 *chosen = a.chosen + (u64)r * wanted, each = ((visible + TOP_THREADS - 1) / TOP_THREADS + 3) / 4 * 4;
    for (u32 i = threadIdx.x; i < DIGITS / 4; i += blockDim.x) ((uint4 *)m.count)[i] = make_uint4(0, 0, 0, 0);
#pragma unroll 1
    for (u32 pass = first_pass(); pass < 2; pass++) {
        if (pass) {
            await();
            // Not before: what follows may rely on all that was waited for here, and has to wait for the choice alone.
            invite();
        }
        if (visible <= wanted) continue;
        __syncthreads();
        u32 seen = pass ? visible : 0;
        if (visible <= 4 * blockDim.x)
            choose_top<HeldScores<1>>(m, scores, seen, 4, wanted, chosen);
        else if (each <= 4 * TOP_QUADS)
            choose_top<HeldScores<TOP_QUADS>>(m, scores, seen, each, wanted, chosen);
        else
            choose_top<ReadScores>(m, scores, seen, each, wanted, chosen);
    }
}
