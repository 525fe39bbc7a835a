// The best tokens of a row of logits in rank order, and the sum of all weights: what the host draws from.
//
// A row is cut into groups of neighbouring tokens. The groups with the largest maxima hold the best tokens,
// as many of these as there are of those: each other group has a token before it in that many groups, the
// first of which win ties, and so do lower ids. So one kernel reads the row once, and another little of it.

static const u32 LISTED = 256;     // tokens of a shortlist, and groups that hold them
static const u32 GROUP_TOKENS = 32; // one to a lane
static const u32 WARP_GROUPS = 8;
static const u32 SCAN_THREADS = 128;

// Of the groups of a warp.
struct PartSum {
    float largest, sum; // of weights relative to the largest
    u32 bad, unused;    // whether a logit is not finite
};

struct Listed {
    float sum; // of weights relative to the best
    u32 bad, unused[2];
    u32 ids[LISTED];
    float logits[LISTED];
};

struct SampleArgs {
    const float *logits;       // [rows][vocab]
    const float *temperatures; // [rows]
    float *largest;            // [rows][parts][WARP_GROUPS]: of each group
    PartSum *sums;             // [rows][parts]
    Listed *lists;             // [rows]
    u32 vocab, groups, parts, unused;
};

// Where `ordered` came from.
__device__ __forceinline__ float unordered(u32 key) { return __uint_as_float(key & 0x80000000u ? key ^ 0x80000000u : ~key); }

// At a temperature of 0 it is not a number, and nobody asks.
__device__ __forceinline__ float weight_below(float logit, float largest, float temperature) {
    return expf(__fdiv_rn(logit - largest, temperature));
}

extern "C" __global__ void THREADS(SCAN_THREADS) scan_logits(const SampleArgs a) {
    enter();
    u32 lane = threadIdx.x % 32, row = blockIdx.y, part = blockIdx.x * (SCAN_THREADS / 32) + threadIdx.x / 32;
    if (part >= a.parts) return;
    const float *logits = a.logits + (u64)row * a.vocab;
    float temperature = a.temperatures[row], v[WARP_GROUPS];
    u32 first = part * WARP_GROUPS * GROUP_TOKENS + lane, most = 0, mine = 0;
#pragma unroll
    for (u32 g = 0; g < WARP_GROUPS; g++) {
        u32 id = first + g * GROUP_TOKENS;
        // Adding zero makes the two zeros one.
        v[g] = id < a.vocab ? logits[id] + 0.0f : -INFINITE;
    }
    bool bad = false;
#pragma unroll
    for (u32 g = 0; g < WARP_GROUPS; g++) {
        u32 key = __reduce_max_sync(FULL, ordered(v[g]));
        if (lane == g) mine = key;
        most = max(most, key);
        bad |= first + g * GROUP_TOKENS < a.vocab && (__float_as_uint(v[g]) & 0x7f800000u) == 0x7f800000u;
    }
    float largest = unordered(most), sum = 0.0f;
#pragma unroll
    for (u32 g = 0; g < WARP_GROUPS; g++) sum += weight_below(v[g], largest, temperature);
    sum = warp_sum(sum);
    u32 any = __any_sync(FULL, bad);
    u64 at = (u64)row * a.parts + part;
    if (lane < WARP_GROUPS) a.largest[at * WARP_GROUPS + lane] = unordered(mine);
    if (lane == 0) a.sums[at] = {largest, sum, any, 0};
}

struct ListShared {
    TopShared top;
    float values[LISTED * GROUP_TOKENS];
    u32 groups[LISTED], places[LISTED];
    uint4 keys[LISTED / 4];
    float sums[32], best;
};

extern "C" __global__ void __launch_bounds__(TOP_THREADS) list_logits(const SampleArgs a) {
    __shared__ __align__(16) ListShared m;
    invite();
    u32 t = threadIdx.x, lane = t % 32, row = blockIdx.x;
    const float *logits = a.logits + (u64)row * a.vocab, *largest = a.largest + (u64)row * a.parts * WARP_GROUPS;
    const PartSum *sums = a.sums + (u64)row * a.parts;
    Listed &list = a.lists[row];
    for (u32 i = t; i < DIGITS / 4; i += TOP_THREADS) ((uint4 *)m.top.count)[i] = make_uint4(0, 0, 0, 0);
    await();
    // Asked for long before it is needed.
    PartSum part = {-INFINITE, 0.0f, 0, 0};
    if (t < a.parts) part = sums[t];
    float temperature = a.temperatures[row];
    __syncthreads();

    // Groups and places come out in ascending order.
    u32 groups = min(a.groups, LISTED);
    if (a.groups <= LISTED) {
        if (t < a.groups) m.groups[t] = t;
    } else if (a.groups <= 4 * TOP_THREADS)
        choose_top<HeldScores<1>>(m.top, largest, a.groups, 4, LISTED, m.groups);
    else
        choose_top<ReadScores>(m.top, largest, a.groups, (a.groups + TOP_THREADS - 1) / TOP_THREADS, LISTED, m.groups);
    __syncthreads();
    for (u32 g = t / 32; g < groups; g += TOP_THREADS / 32) {
        u32 id = m.groups[g] * GROUP_TOKENS + lane;
        m.values[g * GROUP_TOKENS + lane] = id < a.vocab ? logits[id] + 0.0f : 0.0f;
    }
    // Only the last group of a row may have fewer tokens, and it is the last of those that were chosen.
    u32 found = (groups - 1) * GROUP_TOKENS + min(GROUP_TOKENS, a.vocab - m.groups[groups - 1] * GROUP_TOKENS);
    u32 count = min(found, LISTED);
    __syncthreads();
    if (found > LISTED)
        choose_top<HeldScores<2>>(m.top, m.values, found, 8, LISTED, m.places);
    else if (t < found)
        m.places[t] = t;
    __syncthreads();
    // In places that are not taken, what ranks last.
    if (t < LISTED) ((u32 *)m.keys)[t] = t < count ? ordered(m.values[m.places[t]]) : 0;
    __syncthreads();

    // A candidate's rank is how many come before it; four threads count.
    u32 own = t / 4, key = ((const u32 *)m.keys)[own], rank = 0;
    auto before = [&](u32 other, u32 at) { return other > key || (other == key && at < own) ? 1 : 0; };
#pragma unroll 4
    for (u32 i = t % 4; i < LISTED / 4; i += 4) {
        uint4 others = m.keys[i];
        rank += before(others.x, 4 * i) + before(others.y, 4 * i + 1) + before(others.z, 4 * i + 2) + before(others.w, 4 * i + 3);
    }
    rank += __shfl_xor_sync(FULL, rank, 1);
    rank += __shfl_xor_sync(FULL, rank, 2);
    if (t % 4 == 0 && own < count) {
        u32 place = m.places[own];
        float logit = m.values[place];
        list.ids[rank] = m.groups[place / GROUP_TOKENS] * GROUP_TOKENS + place % GROUP_TOKENS;
        list.logits[rank] = logit;
        if (rank == 0) m.best = logit;
    }
    __syncthreads();

    float best = m.best, sum = part.sum * weight_below(part.largest, best, temperature);
    u32 bad = part.bad;
    for (u32 p = t + TOP_THREADS; p < a.parts; p += TOP_THREADS) {
        part = sums[p];
        sum += part.sum * weight_below(part.largest, best, temperature);
        bad |= part.bad;
    }
    bad = __syncthreads_or(bad);
    sum = block_sum(sum, m.sums);
    if (t == 0) list.sum = sum, list.bad = bad;
}
