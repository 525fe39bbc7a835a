// Scores and choice of a few rows in one launch, on cards that have clusters. The blocks of a row are a cluster:
// each prepares some heads of the query for all, scores its share of the index rows when all heads have come, and
// sends the scores into the shared memory of the first, which chooses. The arithmetic is that of `tensor.cu` and
// the choice that of `top.cu`, bit for bit.

// Values of a row, of those that models have: what is known needs no branches.
static const u32 INDEX_DIM = 128;

struct IndexTogetherArgs {
    IndexScoreArgs score; // all but where scores lie
    u32 *chosen;          // [rows][top_k], in ascending order
};

// Behind it lie the query and the scores.
struct IndexShared {
    TopShared top;
    u64 query_box, scores_box;
};

// The host knows it too.
static_assert(sizeof(IndexShared) == 8512, "shared memory of the choice");

// Scores in shared memory, as numbers of their order: behind eight fours there is a gap, so that threads that look
// after neighbouring rows find theirs in different banks. Behind the last there are zeros up to a whole four, which
// no score is less than.
struct NearScores {
    uint4 *fours;

    __device__ __forceinline__ uint4 *place(u32 first) const { return fours + first / 4 + first / 32; }
};

__device__ __forceinline__ uint4 four_ordered(NearScores scores, u32 first) { return *scores.place(first); }

// What a thread reads of them each time: whole fours.
struct ReadNear {
    NearScores scores;
    u32 begin, count;

    __device__ __forceinline__ ReadNear(NearScores all, u32 begin, u32 end) : scores(all), begin(begin), count(end - begin) {}

    template <class Body> __device__ __forceinline__ void each(Body body) const {
#pragma unroll 1
        for (u32 i = 0; i < count; i += 4) {
            uint4 four = four_ordered(scores, begin + i);
            body(i, four.x), body(i + 1, four.y), body(i + 2, four.z), body(i + 3, four.w);
        }
    }
};

// Sends a head as `round_heads` has left it in a warp to the first `blocks` blocks of the cluster, sixteen bytes
// to a letter.
__device__ __forceinline__ void post_head(const IndexQuery &q, u32 head, u32 code, float scale, float weight, u32 blocks, const u64 *box) {
    u32 lane = threadIdx.x % 32, of_four = lane % 4;
    float own = __uint_as_float(code), four[4], scales[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) four[i] = __shfl_sync(FULL, own, lane - of_four + i), scales[i] = __shfl_sync(FULL, scale, 8 * i);
    const float *place = (const float *)(codes_place(q, head) - of_four);
    for (u32 to = of_four; to < blocks; to += 4) post(to, place, make_float4(four[0], four[1], four[2], four[3]), box);
    if (lane >= blocks) return;
    post(lane, (const float *)(q.scales + head), make_float4(scales[0], scales[1], scales[2], scales[3]), box);
    post(lane, q.weights + head, weight, box);
}

// Sends the scores of sixteen index rows to the first block, four to a letter. A lane's neighbours have the same
// two scores, of rows that are eight apart.
__device__ __forceinline__ void post_scores(NearScores scores, u32 first, u32 visible, const float (&score)[2], bool sends, const u64 *box) {
    u32 lane = threadIdx.x % 32, own = first + lane / 4 + lane % 2 * 8 < visible ? ordered(lane % 2 ? score[1] : score[0]) : 0;
    float four[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        u32 row = lane % 4 * 4 + i;
        four[i] = __uint_as_float(__shfl_sync(FULL, own, row % 8 * 4 + row / 8));
    }
    if (sends && lane < 4) post(0, (const float *)scores.place(first + 4 * lane), make_float4(four[0], four[1], four[2], four[3]), box);
}

extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) index_together(const IndexTogetherArgs args) {
    extern __shared__ uint4 choosing[];
    IndexScoreArgs a = args.score;
    a.format.values = INDEX_DIM;
    IndexShared &m = *(IndexShared *)choosing;
    u32 rank = blockIdx.x, blocks = gridDim.x, r = a.first + blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // What the host tells of a round lies there before its first kernel.
    u8 *const *pages = a.rows[r].pages;
    u32 visible = csa_visible(a.rows[r].position), eights = (a.heads + 7) / 8;
    if (visible <= a.top_k) return await(); // the whole cluster
    IndexQuery q;
    q.codes = (uint2 *)(&m + 1);
    q.scales = (float4 *)(q.codes + eights * 128);
    q.weights = (float *)(q.scales + eights * 8);
    NearScores scores{(uint4 *)(q.weights + eights * 8)};
    // A warp's first sixteen index rows, and how far it is to its next.
    u32 first = (warp * blocks + rank) * 16, step = blockDim.x / 32 * blocks * 16;
    // The warps that are last to have index rows are first to have heads.
    u32 first_head = (blockDim.x / 32 - 1 - warp) * blocks + rank;
    if (threadIdx.x == 0) {
        open_box(&m.query_box, eights * 8 * (128 + 16 + 4));
        if (rank == 0) open_box(&m.scores_box, (visible + 15) / 16 * 64);
    }
    arrive(); // from here on others may write here
    for (u32 i = threadIdx.x; i < DIGITS / 4; i += blockDim.x) ((uint4 *)m.top.count)[i] = make_uint4(0, 0, 0, 0);
    float4 turns = lane_turns(a, r);
    for (u32 line = first; line < visible; line += step)
#pragma unroll
        for (u32 i = 0; i < 2; i++) prefetch(index_line(a, pages, line, i, visible) + lane % 4 * 16);
    const u8 *lines[2] = {index_line(a, pages, first, 0, visible), index_line(a, pages, first, 1, visible)};
#pragma unroll 1
    for (u32 pass = first_pass(); pass < 2; pass++) {
        if (pass) {
            wait_for_all();
            await();
            // Not before: what follows may rely on all that was waited for here, and has to wait for the choice alone.
            invite();
        }
        u32 heads = pass ? a.heads : 0, head = first_head;
        float4 v[1] = {query_values(a, r, head, heads)};
        float weight = query_weight(a, r, head, heads);
        IndexLines raw = {};
        if (pass && first < visible) fetch_line(lines[0], INDEX_DIM, 0, raw), fetch_line(lines[1], INDEX_DIM, 1, raw);
#pragma unroll 1
        while (head < eights * 8) {
            u32 code[1];
            float scale[1];
            round_heads<1>(v, turns, INDEX_DIM, code, scale);
            bool live = head < a.heads;
            post_head(q, head, live ? code[0] : 0, live ? scale[0] : 0.0f, weight, pass ? blocks : 0, &m.query_box);
            head += blockDim.x / 32 * blocks;
            v[0] = query_values(a, r, head, heads), weight = query_weight(a, r, head, heads);
        }
#pragma unroll 1
        for (u32 line = first; line < visible; line += step) {
            int codes[4][4];
            float row_scales[2][4], score[2];
            decode_lines(raw, codes, row_scales);
            if (pass && line + step < visible) fetch_lines(a, pages, line + step, visible, raw);
            if (pass && line == first) wait_for(&m.query_box);
            score_lines(q, eights, INDEX_DIM / 32, codes, row_scales, score);
            post_scores(scores, line, visible, score, pass, &m.scores_box);
            if (!pass) break;
        }
        // A block may not end before what is sent to it has come.
        if (pass && first >= visible) wait_for(&m.query_box);
        if (rank) continue;
        __syncthreads();
        if (pass) wait_for(&m.scores_box);
        u32 seen = pass ? (visible + 3) / 4 * 4 : 0, wanted = a.top_k, *chosen = args.chosen + (u64)r * wanted;
        if (visible <= 4 * blockDim.x)
            choose_top<HeldScores<1>>(m.top, scores, seen, 4, wanted, chosen);
        else
            choose_top<ReadNear>(m.top, scores, seen, ((visible + blockDim.x - 1) / blockDim.x + 3) / 4 * 4, wanted, chosen);
    }
}
