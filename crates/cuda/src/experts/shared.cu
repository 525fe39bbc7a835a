// What several rows have in common, where a card has clusters and the formats are Q8_0 and halves: the router's product
// with the shared expert's input, and then the shared expert's output, beside which rows choose their experts.

// The router's clusters come first: theirs are the most bytes.
template <int N> __device__ __forceinline__ void router_and_shared_together(const TogetherProductsArgs &a, u8 *shared) {
    const TogetherProduct &router = a.products[0], &inner = a.products[1];
    u32 cluster = blockIdx.y - inner.of.p.first_block;
    if (blockIdx.y < inner.of.p.first_block) {
        if (router.of.p.m.format == Q8_0)
            products_together<N, Q8_0>(router, blockIdx.y, a.rows, shared);
        else
            products_together<N, F16>(router, blockIdx.y, a.rows, shared);
    } else if (inner.of.p.m.format == Q8_0) {
        products_together<N, Q8_0, 1>(inner, cluster, a.rows, shared);
    } else {
        products_together<N, F16, 1>(inner, cluster, a.rows, shared);
    }
}

struct SharedOutputArgs {
    TogetherProductsArgs product;
    RouteArgs route;
};

// The first cluster's warps each choose for a row, the longest chain of all; the others do the product.
template <int N> __device__ __forceinline__ void output_and_choice(const SharedOutputArgs &a, u8 *shared) {
    if (blockIdx.y > 0) return half_products_together<N>(a.product, blockIdx.y - 1, shared);
    const RouteArgs &route = a.route;
    u32 warp = threadIdx.x / 32, each = 2 * route.experts + route.used;
    if (route.bias && 32 * threadIdx.x < route.experts) prefetch(route.bias + 32 * threadIdx.x);
    float *scores = (float *)shared + warp * each;
    await();
    for (u32 r = blockIdx.x * FEW_WARPS + warp; r < a.product.rows; r += gridDim.x * FEW_WARPS) {
        route_row<true>(route, r, scores, (u32 *)(scores + 2 * route.experts));
        __syncwarp();
    }
}

#define SHARED_KERNEL(NAME, ARGS, BODY)                                                                       \
    extern "C" __global__ void __launch_bounds__(256, RESIDENT(2)) NAME(const __grid_constant__ ARGS a) { \
        extern __shared__ uint4 shared_memory[];                                                              \
        invite();                                                                                             \
        BODY(a, (u8 *)shared_memory);                                                                         \
    }

SHARED_KERNEL(router_and_shared_8, TogetherProductsArgs, router_and_shared_together<1>)
SHARED_KERNEL(router_and_shared_16, TogetherProductsArgs, router_and_shared_together<2>)
SHARED_KERNEL(shared_output_8, SharedOutputArgs, output_and_choice<1>)
SHARED_KERNEL(shared_output_16, SharedOutputArgs, output_and_choice<2>)
