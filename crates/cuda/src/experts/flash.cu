// One row's experts in the formats that a Flash of two bits has: a router of F16, gate and up of IQ2_XXS, down of
// Q2_K, the shared expert of Q8_0. Each kernel leaves room for the next one's blocks, which begin while it is at work
// and do what they can without what it makes. A kernel invites them when its own input is there: so they know that
// all kernels before it are done. The last one invites at once: who comes behind it relies on nothing. The shared
// expert's and the router's products are the chains of `tensor/few.cu`, the others those of whole numbers.

// Blocks of 256 columns that a warp has under way.
static const int SHARED_AHEAD = 2, IN_AHEAD = 2, OUT_AHEAD = 4;

// Where kernels overlap and the assembler makes do with few registers, blocks have fewer threads than these bounds
// say: what counts are the registers that follow, 64, 80 and 64 a thread, so that 288 threads of the first kernel and
// 512 of the second, or those and 384 of the third, have room together: each quarter of a multiprocessor has 16384
// registers, for four warps of the second kernel and three of another.
#if __CUDA_ARCH__ == 900
#define SHARED_BOUNDS __launch_bounds__(512, 2)
#define IN_BOUNDS __launch_bounds__(768, 1)
#define OUT_BOUNDS __launch_bounds__(512, 2)
#else
#define SHARED_BOUNDS __launch_bounds__(288, 1)
#define IN_BOUNDS __launch_bounds__(512, 1)
#define OUT_BOUNDS __launch_bounds__(384, 1)
#endif

// ------------------------------------------------------------------ pieces of weights for one vector

// Shared memory of 256 columns of the vector. A line begins at a multiple of it: places within are put together by
// exclusive or.
static const u32 VECTOR_LINE = 512;

// Where lines may begin behind so many bytes of a block's shared memory.
__device__ __forceinline__ u32 lines_behind(const uint4 *shared, u32 bytes) { return (shared_address(shared) + bytes + VECTOR_LINE - 1) / VECTOR_LINE * VECTOR_LINE; }

// A warp asks for some blocks of 256 columns of a vector, each for its line.
__device__ __forceinline__ void ask_lines(u32 lines, const u16 *vector, u32 first, u32 end) {
    u32 lane = threadIdx.x % 32;
    for (u32 block = first; block < end; block++) copy_further<0>(lines + block * VECTOR_LINE + Near::place(8 * lane), (const u8 *)(vector + 256 * block + 8 * lane));
}

// Half a run of the vector for the first four lanes, which are those that its product wants; the others keep what they
// have. Two loads behind one predicate would become a branch, across which nothing moves.
__device__ __forceinline__ void half_run_of_one(uint4 &x, u32 at) {
    asm volatile("{\n.reg .pred few;\nsetp.lt.u32 few, %5, 4;\n@few ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n}" : "+r"(x.x), "+r"(x.y), "+r"(x.z), "+r"(x.w) : "r"(at), "r"(threadIdx.x % 32));
}

// 16 rows with a block of the vector, whose line this is from the lane's first run on.
template <int F> __device__ __forceinline__ void one_block(const Span<F> &at, u32 line, uint4 &x, float (&sum)[4]) {
    const Matrix not_needed = {};
    Tile<F> tile;
    tile.begin(at);
    tile.fetch(at, 0);
#pragma unroll
    for (u32 s = 0; s < 4; s++) {
        u32 half = line ^ Near::place(Codes<F>::start(s, 0));
        half_run_of_one(x, half);
        if (s < 3) tile.fetch(at, s + 1);
        u32 a[8], b[8];
        tile.a.run(not_needed, nullptr, s, threadIdx.x % 4, a);
        tile.b.run(not_needed, nullptr, s, threadIdx.x % 4, b);
        mma(sum, a[0], b[0], a[1], b[1], x.x, x.y);
        mma(sum, a[2], b[2], a[3], b[3], x.z, x.w);
        half_run_of_one(x, half + 16);
        mma(sum, a[4], b[4], a[5], b[5], x.x, x.y);
        mma(sum, a[6], b[6], a[7], b[7], x.z, x.w);
    }
}

// A warp's work: segments of strips, one after another, `D` blocks of 256 columns ahead. A walk says of a segment which
// it is: where the strip begins, its number among the strip's, the line of its first block; `next` goes to the next.
// The vector lies in lines, once for all.
template <int F, int D, class Walk> struct OnePipe {
    static_assert(D == 1 || D == 2, "a segment's blocks lie side by side, or one after the other");
    static const u32 slot_bytes = TILE_BYTES<F>;

    u32 to;            // where the lane copies
    Span<F> span;      // what it reads
    u32 lines;         // of the vector, from the lane's first run on
    u32 blocks, count; // of the matrices' columns; of segments
    Walk here, ahead;
    u32 left;          // blocks that have not been asked for

    __device__ __forceinline__ OnePipe(u32 room, u32 lines, u32 blocks, u32 count, const Walk &walk)
        : to(room + threadIdx.x % 32 * 16), span(room, room + 16 * Widths<F>::codes, threadIdx.x % 32 / 4, Codes<F>::lane(threadIdx.x % 4), nullptr), lines(lines + Near::place(Codes<F>::start(0, threadIdx.x % 4))),
          blocks(blocks), count(count), here(walk), ahead(walk), left(2 * count) {
        keep_at_hand(to), keep_at_hand(span.codes), keep_at_hand(span.scales), keep_at_hand(this->lines);
        if (Widths<F>::swap) keep_at_hand(span.traded);
    }

    // Asks for the first or the second block of the segment ahead.
    __device__ __forceinline__ void ask(u32 slot, u32 k) {
        if (left > 0) {
            u32 block = 2 * ahead.segment + k, at = to + slot * slot_bytes;
            if (block < blocks) ask_line<TILE_BYTES<F>>(at, ahead.strip() + (block * TILE_BYTES<F> + threadIdx.x % 32 * 16));
            left--;
            if (k == 1) ahead.next();
        }
        copies_begun();
    }

    // Asks for the first weights; what they are multiplied with need not be there yet.
    __device__ __forceinline__ void begin() {
#pragma unroll
        for (u32 i = 0; i < D; i++) ask(i, i % 2);
    }

    // The vector's lines are there; copies that were begun behind `begin` are done. `done(walk, top, bottom)` gets the
    // sums of a segment: the rows of a strip are those of the lanes whose number is a multiple of four, and those of
    // eight further on.
    template <class Done> __device__ __forceinline__ void end(Done done) {
        uint4 x = {};
        for (; count > 0; count--) {
            float sum[4] = {};
#pragma unroll 1
            for (u32 k = 0; k < 2; k++) {
                u32 slot = D == 1 ? 0 : k;
                if (2 * here.segment + k < blocks) {
                    copies_done<D - 1>();
                    __syncwarp();
                    one_block<F>(span.further(slot * slot_bytes), lines + (here.line() + k) * VECTOR_LINE, x, sum);
                }
                __syncwarp();
                ask(slot, (k + D) % 2);
            }
            if (threadIdx.x % 4 == 0) done(here, sum[0], sum[2]);
            here.next();
        }
    }
};

template <int F> __device__ __forceinline__ u32 strip_bytes(u32 cols) { return cols / 256 * TILE_BYTES<F>; }

// ------------------------------------------------------------------ the router and the shared expert's input

// Segments of the shared expert's strips, of each first those of gate, then those of up.
struct SharedGateAndUp {
    const u8 *gate, *up;
    u32 which, segment, share;
    __device__ __forceinline__ const u8 *strip() const { return which ? up : gate; }
    __device__ __forceinline__ u32 line() const { return 2 * segment; }
    __device__ __forceinline__ void next() {
        if (which == 1) segment += share;
        which ^= 1;
    }
};

// Every so many segments of all of the router's strips.
struct RouterWalk {
    const u8 *strips;
    u32 task, step, segments, stride, segment;
    __device__ __forceinline__ const u8 *strip() const { return strips + task / segments * stride; }
    __device__ __forceinline__ u32 line() const { return 2 * segment; }
    __device__ __forceinline__ void next() { task += step, segment = task % segments; }
};

// The sums of gate and up of so many tiles, [tiles][gate, up][count][16], become inner values; `add(total, sum, i)` says
// how. All threads do this.
template <class Add> __device__ __forceinline__ void inner_values(u16 *middle, const float *sums, u32 tiles, u32 count, float scale, float limit, float weight, Add add) {
    for (u32 o = threadIdx.x; o < tiles * 16; o += blockDim.x) {
        const float *of = sums + 2 * (o / 16) * count * 16 + o % 16;
        float g = 0.0f, u = 0.0f;
#pragma unroll 8
        for (u32 i = 0; i < count; i++) g = add(g, of[i * 16], i), u = add(u, of[(count + i) * 16], i);
        middle[o] = half_of(swiglu(g * scale, u * scale, limit) * weight);
    }
}

// Warps of a block that work for the shared expert; one more does for the router.
static const u32 SHARED_WARPS = FEW_WARPS;

// Inner values of the shared expert, and of the router's product the sums of segments, [segments][experts] at `parts`,
// which those who choose add up.
extern "C" __global__ void SHARED_BOUNDS one_router_and_shared(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    const ExpertsArgs &e = a.e;
    const u32 slots = SHARED_AHEAD * TILE_BYTES<Q8_0>;
    u32 warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, segments = segments_of(e.hidden), blocks = e.hidden / 256, share = sharers(e.hidden), groups = SHARED_WARPS / share;
    u32 top = blockIdx.x * groups, all = min(groups, e.inner / 16 - top), before_sums = SHARED_WARPS * slots + SHARED_AHEAD * TILE_BYTES<F16>;
    u32 room = shared_address(shared_memory) + warp * slots, lines = lines_behind(shared_memory, before_sums + groups * 2 * segments * 16 * sizeof(float));
    float *sums = (float *)((u8 *)shared_memory + before_sums); // [tiles][gate, up][segments][16]
    if (warp < SHARED_WARPS) {
        u32 tile = warp / share, lead = warp % share, mine = tile < all ? (segments - lead + share - 1) / share * 2 : 0;
        u32 begin = (top + min(tile, all - 1)) * strip_bytes<Q8_0>(e.hidden);
        OnePipe<Q8_0, SHARED_AHEAD, SharedGateAndUp> pipe(room, lines, blocks, mine, {e.shared_gate.codes + begin, e.shared_up.codes + begin, 0, lead, share});
        pipe.begin();
        await();
        invite();
        for (u32 segment = lead; segment < segments; segment += share) ask_lines(lines, a.x, 2 * segment, min(2 * segment + 2, blocks));
        copies_begun();
        copies_done<0>();
        pipe.end([&](const SharedGateAndUp &walk, float upper, float lower) {
            float *at = sums + ((tile * 2 + walk.which) * segments + walk.segment) * 16 + g;
            at[0] = upper, at[8] = lower;
        });
    } else {
        const Matrix &router = a.router.products[0].p.m;
        u32 tasks = (a.experts + 15) / 16 * segments, mine = blockIdx.x < tasks ? (tasks - blockIdx.x + gridDim.x - 1) / gridDim.x : 0;
        OnePipe<F16, SHARED_AHEAD, RouterWalk> pipe(room, lines, blocks, mine, {router.codes, blockIdx.x, gridDim.x, segments, strip_bytes<F16>(e.hidden), blockIdx.x % segments});
        pipe.begin();
        await();
        invite();
        for (u32 task = blockIdx.x; task < tasks; task += gridDim.x) ask_lines(lines, a.x, task % segments * 2, min(task % segments * 2 + 2, blocks));
        copies_begun();
        copies_done<0>();
        pipe.end([&](const RouterWalk &walk, float upper, float lower) {
            u32 expert = walk.task / segments * 16 + g;
            float *at = a.parts + walk.segment * a.experts + expert;
            if (expert < a.experts) at[0] = upper;
            if (expert + 8 < a.experts) at[8] = lower;
        });
    }
    __syncthreads();
    inner_values(a.middle + (u64)e.used * e.inner + top * 16, sums, all, segments, unscale(Q8_0), e.shared_limit, 1.0f, [](float total, float sum, u32) { return __fadd_rn(total, sum); });
}

// ------------------------------------------------------------------ the experts' input

// Which of the chosen experts a block works for, from which tile on, of how many, where those of gate and of up
// begin, and what the expert weighs.
struct InnerTask {
    u32 k, top, tiles;
    const u8 *strips[2];
    float weight;
    // It is read each time: a register for it would be one too many.
    __device__ __forceinline__ const u8 *strip(u32 m) const {
        uint2 at = staged8(shared_address(strips + m));
        return (const u8 *)((u64)at.y << 32 | at.x);
    }
};

// A block's tasks: segments of its tiles, tile by tile, of which a warp takes every so many.
struct GateAndUp {
    u32 tile, segment;
    __device__ __forceinline__ void skip(u32 tasks, u32 segments) {
        for (segment += tasks; segment >= segments; segment -= segments) tile++;
    }
};

// What a warp does. Both of a task's pieces of 256 columns are asked for one task ahead. `meanwhile()` is done when
// the first are on their way. `sums` is where those of all blocks go, [tiles][gate, up][blocks][16], times the rows' units.
template <class Meanwhile>
__device__ __forceinline__ void gate_and_up(u32 room, u32 lines, u32 column, const InnerTask &task, u32 cols, u32 sums, Meanwhile meanwhile) {
    const int F = IQ2_XXS;
    static_assert(IN_AHEAD == 2, "a task has two pieces");
    const u32 slot = 2 * TILE_BYTES<F>;
    u32 lane = threadIdx.x % 32, segments = segments_of(cols), blocks = cols / 256, to = room + lane * 16;
    auto ask = [&](const GateAndUp &walk, u32 k) {
        u32 block = 2 * walk.segment + k, at = to + k * slot, further = (walk.tile * blocks + block) * TILE_BYTES<F> + lane * 16;
        if (walk.tile < task.tiles && block < blocks) {
            ask_line<TILE_BYTES<F>>(at, task.strip(0) + further);
            ask_line<TILE_BYTES<F>>(at + TILE_BYTES<F>, task.strip(1) + further);
        }
        copies_begun();
    };
    GateAndUp here = {0, 0};
    here.skip(threadIdx.x / 32, segments);
    ask(here, 0), ask(here, 1);
    meanwhile();
    static_assert(Widths<F>::codes == 64 && Widths<F>::swap == 0, "four lanes read a row");
    u32 sizes = room + 16 * Widths<F>::codes + lane / 4 * Widths<F>::scales + lane % 4, unit = room + iq2_unit();
    sums += (lane % 4 / 2 * blocks * 16 + lane / 4 + lane % 2 * 8) * 4;
    keep_at_hand(to), keep_at_hand(sizes), keep_at_hand(unit), keep_at_hand(sums);
    ByteRuns runs;
#pragma unroll 1
    while (here.tile < task.tiles) {
        GateAndUp ahead = here;
        ahead.skip(blockDim.x / 32, segments);
#pragma unroll 1
        for (u32 k = 0; k < 2; k++) {
            copies_done<1>();
            __syncwarp();
            u32 block = 2 * here.segment + k;
            if (block < blocks) {
                int part[1][4];
                runs.load<1>(lines + block * BYTE_LINE);
                iq2_parts<1>(to + k * slot, sizes + k * slot, column, runs, part);
                float of_row = f16_to_f32((u16)staged2(unit + k * slot));
                stage4(sums + (2 * here.tile * blocks + block) * 64, __fmul_rn((float)sum_of_lanes(part[0]), of_row));
            }
            __syncwarp();
            ask(ahead, k);
        }
        here = ahead;
    }
}

// Inner vectors of the chosen experts: a block takes some tiles of one.
extern "C" __global__ void IN_BOUNDS one_experts_in(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    __shared__ Choice choice;
    __shared__ InnerTask task; // there are no registers for it while products are made
    const ExpertsArgs &e = a.e;
    const u32 slots = IN_AHEAD * 2 * TILE_BYTES<IQ2_XXS>;
    u32 warps = blockDim.x / 32, warp = threadIdx.x / 32, segments = segments_of(e.hidden), blocks = e.hidden / 256;
    Iq2Digits &table = *(Iq2Digits *)shared_memory;
    u8 *rooms = (u8 *)(&table + 1), *lines = rooms + warps * slots;
    float *sums = (float *)(lines + blocks * BYTE_LINE); // [tiles][gate, up][blocks][16]
    // The router's kernel had the same input.
    for (u32 i = threadIdx.x; i < blocks * (BYTE_LINE / 16); i += blockDim.x) copy_async(lines + i * 16, a.numbers.lines + i * 16);
    copies_begun();
    table.fill();
    if (threadIdx.x == 0) {
        u32 strips = e.inner / 16, per_expert = (strips + a.inner_tiles - 1) / a.inner_tiles;
        task.k = blockIdx.x / per_expert, task.top = blockIdx.x % per_expert * a.inner_tiles, task.tiles = min(a.inner_tiles, strips - task.top);
    }
    choose_early(a.route, choice);
    copies_done<0>();
    // Once before the router's product is there, for nothing but that the instructions are near when it is.
    choose(a.route.experts, e.used, a.route.bias, a.parts, segments, choice);
    await();
    invite();
    choose(a.route.experts, e.used, a.route.bias, a.parts, segments, choice);
    u32 expert = choice.picks[task.k], begin = task.top * strip_bytes<IQ2_XXS>(e.hidden);
    auto weigh = [&]() {
        if (threadIdx.x == 0) task.weight = choice.scores[expert] / sum_of_chosen(choice.scores, choice.picks, e.used) * a.route.scale;
    };
    // All write the same, and so none waits for another warp.
    task.strips[0] = e.gate.first.codes + e.gate.codes_stride * expert + begin, task.strips[1] = e.up.first.codes + e.up.codes_stride * expert + begin;
    __syncwarp();
    gate_and_up(shared_address(rooms) + warp * slots, shared_address(lines), table.column(), task, e.hidden, shared_address(sums), weigh);
    __syncthreads();
    inner_values(a.middle + (u64)task.k * e.inner + task.top * 16, sums, task.tiles, blocks, unscale(IQ2_XXS), e.limit, task.weight,
                 [&](float total, float sum, u32 block) { return __fmaf_rn(sum, *(const float *)(lines + block * BYTE_LINE + BYTE_UNIT), total); });
}

// ------------------------------------------------------------------ the experts' output

// Every so many segments of the shared expert's strips, one strip after another.
struct SharedDown {
    const u8 *strips;
    u32 stride, segments, warps, which, segment;
    __device__ __forceinline__ void skip(u32 tasks) {
        for (segment += tasks; segment >= segments; segment -= segments) which++;
    }
    __device__ __forceinline__ const u8 *strip() const { return strips + which * stride; }
    __device__ __forceinline__ u32 line() const { return 2 * segment; }
    __device__ __forceinline__ void next() { skip(warps); }
};

// Blocks of a chosen expert's strip: where they begin, how many they are, two at most; which line of the vectors is the
// first one's, and where its sums go.
struct DownTask {
    const u8 *at;
    u32 blocks;
    u16 line, sums;
};

// A block computes some times 16 values of the row's output; a multiprocessor has one. It begins when the shared
// expert's inner vector and the router's product are there, and chooses and does the shared expert's part while the
// other inner vectors are made.
extern "C" __global__ void OUT_BOUNDS one_experts_out(const __grid_constant__ HalfExpertsArgs a) {
    extern __shared__ uint4 shared_memory[];
    __shared__ Choice choice;
    invite();
    const ExpertsArgs &e = a.e;
    const u32 tile = TILE_BYTES<Q2_K>, slots = OUT_AHEAD * tile;
    static_assert(slots >= TILE_BYTES<Q8_0>, "a block of the shared expert has the room of the others' pieces");
    static_assert(OUT_AHEAD == 4, "two segments of two blocks");
    u32 warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32, used = e.used, segments = segments_of(e.inner), blocks = e.inner / 256;
    u32 every = (e.hidden / 16 + gridDim.x - 1) / gridDim.x, top = blockIdx.x * every, strips = min(every, e.hidden / 16 - top), tasks = strips * used * segments;
    u32 room = shared_address(shared_memory) + warp * slots;
    DownTask *task_list = (DownTask *)((u8 *)shared_memory + warps * slots); // [strips][used][segments]
    float *sums = (float *)(task_list + tasks);                             // [strips][used][blocks][16]
    float *shared_sums = sums + strips * used * blocks * 16;                // [strips][segments][16]
    float *values = shared_sums + strips * segments * 16;                   // [strips][used + 1][16]
    u8 *inner_lines = (u8 *)(values + strips * (used + 1) * 16); // [used][blocks] of `INNER_LINE`
    u32 lines = lines_behind(shared_memory, inner_lines + used * blocks * INNER_LINE - (u8 *)shared_memory);
    auto put = [&](float *at, float upper, float lower) { at[lane / 4] = upper, at[lane / 4 + 8] = lower; };
    choose_early(a.route, choice);

    // Each warp asks for what it needs of the vector.
    u32 shared = strips * segments, mine = warp < shared ? (shared - warp + warps - 1) / warps : 0, stride = strip_bytes<Q8_0>(e.inner);
    SharedDown walk = {e.shared_down.codes + top * stride, stride, segments, warps, 0, 0};
    walk.skip(warp);
    OnePipe<Q8_0, 1, SharedDown> of_shared(room, lines, blocks, mine, walk);
    for (u32 i = 0; i < mine; i++, walk.next()) ask_lines(lines, a.middle + used * e.inner, walk.line(), min(2 * walk.segment + 2, blocks));
    of_shared.begin();
    choose(a.route.experts, used, a.route.bias, a.parts, segments_of(e.hidden), choice);
    stride = strip_bytes<Q2_K>(e.inner);
    for (u32 task = threadIdx.x; task < tasks; task += blockDim.x) {
        u32 of = task / segments, segment = task % segments, k = of % used;
        const u8 *expert = e.down.first.codes + e.down.codes_stride * choice.picks[k];
        task_list[task] = {expert + (top + of / used) * stride + 2 * segment * tile, min(2u, blocks - 2 * segment), (u16)(k * blocks + 2 * segment), (u16)(of * blocks + 2 * segment)};
    }
    of_shared.end([&](const SharedDown &walk, float upper, float lower) { put(shared_sums + (walk.which * segments + walk.segment) * 16, upper, lower); });
    __syncthreads();

    u32 list = shared_address(task_list), to = room + lane * 16;
    // Asks for both blocks of a task.
    auto ask = [&](u32 task, u32 slot) {
        if (task < tasks) {
            uint4 of = staged16(list + task * sizeof(DownTask));
            const u8 *from = (const u8 *)((u64)of.y << 32 | of.x) + lane * 16;
            ask_line<tile>(to + slot, from);
            if (of.z > 1) ask_line<tile>(to + slot + tile, from + tile);
        }
        copies_begun();
    };
    ask(warp, 0), ask(warp + warps, 2 * tile);
    await();
    // Each warp makes whole numbers of what it needs of the vectors, once if the strips are shared out alike; else others
    // may make the same again.
    u32 once = used * segments % warps ? tasks : used * segments;
#pragma unroll 1
    for (u32 task = warp; task < once; task += 2 * warps) {
        uint4 halves[4];
        u32 block[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 which = task + i / 2 * warps;
            uint2 of = which < once ? staged8(list + which * sizeof(DownTask) + 8) : make_uint2(0, 0);
            block[i] = i % 2 < of.x ? of.y % 0x10000 + i % 2 : NOWHERE;
            if (block[i] != NOWHERE) halves[i] = __ldcg((const uint4 *)(a.middle + block[i] * 256) + lane);
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (block[i] != NOWHERE) InnerEight(halves[i]).store(inner_lines + block[i] * INNER_LINE);
    }
    u32 slot = 0;
#pragma unroll 1
    for (u32 task = warp; task < tasks; task += warps) {
        uint2 of = staged8(list + task * sizeof(DownTask) + 8);
        u32 line = shared_address(inner_lines) + of.y % 0x10000 * INNER_LINE, put = shared_address(sums) + of.y / 0x10000 * 64 + lane / 4 * 4;
        copies_done<1>();
        __syncwarp();
#pragma unroll 1
        for (u32 k = 0; k < of.x; k++) {
            float value[2];
            q2_block(room + slot + k * tile, InnerRuns(line + k * INNER_LINE), value);
            if (lane % 4 == 0) stage4(put + k * 64, value[0]), stage4(put + k * 64 + 32, value[1]);
        }
        __syncwarp();
        ask(task + 2 * warps, slot);
        slot ^= 2 * tile;
    }
    __syncthreads();
    for (u32 o = threadIdx.x; o < strips * (used + 1) * 16; o += blockDim.x) {
        u32 strip = o / 16 / (used + 1), k = o / 16 % (used + 1);
        float sum = 0.0f;
        if (k < used) {
            const float *of = sums + (strip * used + k) * blocks * 16 + o % 16;
#pragma unroll 8
            for (u32 b = 0; b < blocks; b++) sum = __fmaf_rn(of[b * 16], *(const float *)(inner_lines + (k * blocks + b) * INNER_LINE + INNER_UNIT), sum);
        } else {
            const float *of = shared_sums + strip * segments * 16 + o % 16;
#pragma unroll 4
            for (u32 s = 0; s < segments; s++) sum += of[s * 16];
            sum = __fmul_rn(sum, unscale(Q8_0));
        }
        values[o] = sum;
    }
    __syncthreads();
    for (u32 o = threadIdx.x; o < strips * 16; o += blockDim.x) {
        const float *of = values + o / 16 * (used + 1) * 16 + o % 16;
        float y = of[used * 16];
#pragma unroll 8
        for (u32 k = 0; k < used; k++) y = __fadd_rn(y, of[k * 16]);
        e.out[top * 16 + o] = y;
    }
}
