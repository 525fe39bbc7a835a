// The rows of the largest scores. A thread looks after neighbouring rows and holds their scores in
// registers, unless there are too many.

static const u32 TOP_THREADS = 1024;
static const u32 TOP_QUADS = 8; // of four scores, that a thread can hold

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

// A thread's scores, as numbers of their order: in registers.
struct HeldScores {
    u32 begin, count, held[4 * TOP_QUADS];

    __device__ __forceinline__ HeldScores(const float *scores, u32 begin, u32 end) : begin(begin), count(end - begin) {
#pragma unroll
        for (u32 i = 0; i < TOP_QUADS; i++) {
            // There is room beyond the last score; what lies there is not counted.
            float4 v = 4 * i < count ? *(const float4 *)(scores + begin + 4 * i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            held[4 * i] = ordered(v.x), held[4 * i + 1] = ordered(v.y), held[4 * i + 2] = ordered(v.z), held[4 * i + 3] = ordered(v.w);
        }
    }

    // Does something with each, in their order.
    template <class Body> __device__ __forceinline__ void each(Body body) const {
#pragma unroll
        for (u32 i = 0; i < 4 * TOP_QUADS; i++)
            if (i < count) body(i, held[i]);
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
    u64 warp_sums[32];
    u32 count[256];
    u32 smallest, largest, prefix, wanted;
};

// The first warp finds the digit at which the wanted number is reached, from the top.
__device__ __forceinline__ void find_digit(TopShared &m, u32 width) {
    u32 lane = threadIdx.x, mine = 0, own[8];
#pragma unroll
    for (int i = 0; i < 8; i++) mine += own[i] = m.count[255 - (8 * lane + i)];
    u32 before = mine;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        u32 other = __shfl_up_sync(FULL, before, o);
        if (lane >= (u32)o) before += other;
    }
    before -= mine;
    u32 left = m.wanted;
    __syncwarp();
    if (before < left && before + mine >= left) {
        u32 digit = 255 - 8 * lane;
#pragma unroll
        for (int i = 0; i < 7; i++)
            if (before + own[i] < left && digit == 255 - (8 * lane + i)) before += own[i], digit--;
        m.prefix = m.prefix << width | digit;
        m.wanted = left - before;
    }
}

template <class Scores> __device__ __forceinline__ void choose_top(const TopArgs &a, TopShared &m, const float *scores, u32 visible, u32 *chosen) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 each = ((visible + TOP_THREADS - 1) / TOP_THREADS + 3) / 4 * 4;
    Scores mine(scores, min(threadIdx.x * each, visible), min((threadIdx.x + 1) * each, visible));

    // What all scores have in common need not be looked at.
    if (threadIdx.x == 0) m.smallest = 0xffffffffu, m.largest = 0, m.wanted = a.top_k;
    __syncthreads();
    u32 smallest = 0xffffffffu, largest = 0;
    mine.each([&](u32, u32 key) { smallest = min(smallest, key), largest = max(largest, key); });
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        smallest = min(smallest, __shfl_xor_sync(FULL, smallest, o));
        largest = max(largest, __shfl_xor_sync(FULL, largest, o));
    }
    if (lane == 0) atomicMin(&m.smallest, smallest), atomicMax(&m.largest, largest);
    __syncthreads();
    // Eight bits at a time, from the first in which two differ.
    u32 differ = m.smallest ^ m.largest;
    u32 shift = differ ? 32 - __clz((int)differ) : 0;
    if (threadIdx.x == 0) m.prefix = shift < 32 ? m.largest >> shift : 0;
    __syncthreads();
    while (shift > 0) {
        u32 width = min(shift, 8u), next = shift - width;
        if (threadIdx.x < 256) m.count[threadIdx.x] = 0;
        __syncthreads();
        u32 prefix = m.prefix;
        mine.each([&](u32, u32 key) {
            if (shift == 32 || key >> shift == prefix) atomicAdd(&m.count[key >> next & ((1u << width) - 1)], 1);
        });
        __syncthreads();
        if (warp == 0) find_digit(m, width);
        __syncthreads();
        shift = next;
    }
    // Everything above the threshold, and the first `wanted` that equal it: how many of both each
    // thread has, above in the upper half, and how many come before.
    u32 threshold = m.prefix, wanted = m.wanted;
    u64 own = 0;
    mine.each([&](u32, u32 key) { own += key > threshold ? 1ull << 32 : key == threshold; });
    u64 before = own;
#pragma unroll
    for (int o = 1; o < 32; o *= 2) {
        u64 other = __shfl_up_sync(FULL, before, o);
        if (lane >= (u32)o) before += other;
    }
    if (lane == 31) m.warp_sums[warp] = before;
    before -= own;
    __syncthreads();
    for (u32 w = 0; w < warp; w++) before += m.warp_sums[w];
    u32 above = (u32)(before >> 32), equal = (u32)before;
    mine.each([&](u32 i, u32 key) {
        u32 at = above + min(equal, wanted);
        if (key > threshold || (key == threshold && equal < wanted)) chosen[at] = mine.begin + i;
        above += key > threshold, equal += key == threshold;
    });
}

extern "C" __global__ void __launch_bounds__(TOP_THREADS) index_top(const TopArgs a) {
    __shared__ TopShared m;
    enter();
    u32 r = a.first + blockIdx.x;
    u32 visible = csa_visible(a.rows[r].position);
    if (visible <= a.top_k) return;
    const float *scores = a.scores + (u64)blockIdx.x * a.capacity;
    u32 *chosen = a.chosen + (u64)r * a.top_k;
    if (visible <= TOP_THREADS * 4 * TOP_QUADS)
        choose_top<HeldScores>(a, m, scores, visible, chosen);
    else
        choose_top<ReadScores>(a, m, scores, visible, chosen);
}
