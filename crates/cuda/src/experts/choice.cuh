// One row's choice of experts, made by every block that needs it, from the sums of segments that the router's blocks
// leave: so nobody waits for a block that chooses.

// The most experts that are chosen from; a block has a thread for each.
static const u32 MOST_EXPERTS = 256;

struct Choice {
    uint4 keys[MOST_EXPERTS / 4];
    float scores[MOST_EXPERTS];
    u32 picks[MOST_USED];
};

// As `pick_largest`; a lane looks after neighbours, so that the first lane with the largest key has the lowest index.
__device__ __forceinline__ void pick_of_neighbours(const uint4 *keys, u32 used, u32 *picks) {
    const u32 EACH = MOST_EXPERTS / 32;
    u32 lane = threadIdx.x % 32, mine[EACH];
#pragma unroll
    for (u32 j = 0; j < EACH; j++) mine[j] = word(keys[lane * (EACH / 4) + j / 4], j % 4);
    for (u32 k = 0; k < used; k++) {
        u32 best = 0;
#pragma unroll
        for (u32 j = 0; j < EACH; j++) best = max(best, mine[j]);
        u32 largest = __reduce_max_sync(FULL, best);
        if (lane + 1 == (u32)__ffs(__ballot_sync(FULL, best == largest))) {
            u32 at = EACH;
#pragma unroll
            for (u32 j = EACH; j > 0; j--)
                if (mine[j - 1] == largest) at = j - 1;
#pragma unroll
            for (u32 j = 0; j < EACH; j++)
                if (j == at) mine[j] = 0; // less than the key of any score
            picks[k] = lane * EACH + at;
        }
    }
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
