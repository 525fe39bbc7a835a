// One row's choice of experts, made by every block that needs it, from the sums of segments that the router's blocks
// leave: so nobody waits for a block that chooses.

// The most experts that are chosen from; a block has a thread for each.
static const u32 MOST_EXPERTS = 256;

struct Choice {
    uint4 keys[MOST_EXPERTS / 4];
    float scores[MOST_EXPERTS];
    u32 picks[MOST_USED];
};

__device__ __forceinline__ void larger_first(u32 &a, u32 &b) {
    u32 larger = max(a, b);
    b = min(a, b), a = larger;
}

// As `pick_largest`; a lane looks after neighbours, so that the first lane with the largest key has the lowest index. It
// sorts its keys, and says which of them were picked when all have been.
__device__ __forceinline__ void pick_of_neighbours(const uint4 *keys, u32 used, u32 *picks) {
    const u32 EACH = MOST_EXPERTS / 32;
    static_assert(EACH == 8, "a network for eight keys");
    u32 lane = threadIdx.x % 32, below = (1u << lane) - 1, mine[EACH], value = 0, owner = 0;
#pragma unroll
    for (u32 j = 0; j < EACH; j++) mine[j] = word(keys[lane * (EACH / 4) + j / 4], j % 4);
#pragma unroll
    for (u32 j = 0; j < 8; j += 2) larger_first(mine[j], mine[j + 1]);
#pragma unroll
    for (u32 j = 0; j < 8; j += 4) larger_first(mine[j], mine[j + 2]), larger_first(mine[j + 1], mine[j + 3]), larger_first(mine[j + 1], mine[j + 2]);
#pragma unroll
    for (u32 j = 0; j < 4; j++) larger_first(mine[j], mine[j + 4]);
    larger_first(mine[2], mine[4]), larger_first(mine[3], mine[5]);
#pragma unroll
    for (u32 j = 1; j < 7; j += 2) larger_first(mine[j], mine[j + 1]);
#pragma unroll 1
    for (u32 k = 0; k < used; k++) {
        u32 largest = __reduce_max_sync(FULL, mine[0]);
        bool has = mine[0] == largest;
        u32 all = __ballot_sync(FULL, has);
        if (lane == k) value = largest, owner = __ffs(all) - 1;
        bool picked = has && !(all & below);
#pragma unroll
        for (u32 j = 0; j < EACH; j++) mine[j] = picked ? (j + 1 < EACH ? mine[j + 1] : 0) : mine[j]; // 0 is less than the key of any score
    }
    // Of a lane's equal keys the first is picked first.
    u32 before = __popc(__match_any_sync(FULL, value) & __match_any_sync(FULL, owner) & below);
    if (lane >= used) return;
    u32 at = 0;
#pragma unroll
    for (u32 j = EACH; j > 0; j--) {
        u32 sooner = 0;
#pragma unroll
        for (u32 i = 0; i + 1 < j; i++) sooner += word(keys[owner * (EACH / 4) + i / 4], i % 4) == value;
        if (word(keys[owner * (EACH / 4) + (j - 1) / 4], (j - 1) % 4) == value && sooner == before) at = j - 1;
    }
    picks[lane] = owner * EACH + at;
}

// The choice of a row whose token chooses can be known without the router's product.
__device__ __forceinline__ void choose_early(const RouteArgs &r, Choice &choice) {
    if (r.table && threadIdx.x < r.used) choice.picks[threadIdx.x] = r.table[(u64)r.rows->token * r.used + threadIdx.x];
}

// The row's choice, as `route_row`; every thread of the block must call this. `bias` is null where tokens choose.
__device__ __noinline__ void choose(u32 experts, u32 used, const float *bias, const float *parts, u32 segments, Choice &choice) {
    u32 expert = threadIdx.x, key = 0;
    if (expert < experts) {
        float more = bias ? __ldg(bias + expert) : 0.0f, logit = 0.0f;
#pragma unroll 8
        for (u32 s = 0; s < segments; s++) logit += __ldcg(parts + s * experts + expert);
        float score = sqrtf(softplus(logit));
        choice.scores[expert] = score;
        key = ordered(score + more);
    }
    if (expert < MOST_EXPERTS) ((u32 *)choice.keys)[expert] = key;
    __syncthreads();
    if (bias && threadIdx.x < 32) pick_of_neighbours(choice.keys, used, choice.picks);
    __syncthreads();
}
