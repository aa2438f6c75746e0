/* guided.c: a program in which a coverage-guided fuzzer calls kernels: bytes choose the operator, shapes, types, strides,
 * options and numbers (`make guided`, with libFuzzer). guided.h says what is held against a call.
 *
 * Without a fuzzer (XENT_REPLAY) it takes a file with an input a line, in hexadecimal numbers (corpus.txt), and prints a
 * digest of what each gives, for test_guided.py: bits that two instruction sets must share.
 */
#include "guided_images.h"
#include "guided_losses.h"

static const struct {
    const char *name;
    void (*call)(void);
    int same_bits; /* on all instruction sets that fuse */
} operators[] = {
    {"softmax", softmaxes, 1},
    {"logsumexp", log_sums, 1},
    {"logsumexp_backward", log_sums_backward, 1},
    {"weighted logsumexp", weighted_log_sums, 1},
    {"cross_entropy", cross_entropies, 1},
    {"cross_entropy, product", products, 1},
    {"evaluate", evaluation, 1},
    {"token_log_probs", tokens, 1},
    {"comparison", comparisons, 1},
    {"distillation", distillations, 1},
    {"sparse distillation", sparse_distillations, 1},
    {"losses of positions", losses_of_positions, 1},
    {"losses of labels", losses_of_labels, 1},
    {"losses of elements", losses_of_elements, 1},
    {"sigmoid_cross_entropy", binary_losses, 1},
    {"maps", maps, 1},
    {"exp, log, log1p", functions, 1},
    {"conv2d", forward, 0},
    {"conv2d again", forward, 0}, /* which has the most ways */
    {"conv_transpose2d", transposed, 0},
    {"gradient by weights", grad_weight, 0},
    {"gradient by bias", grad_bias, 0},
    {"im2col, col2im", columns, 0},
    {"pools", pools, 0},
    {"copies into another order", orders, 0},
    {"scans", scans, 0},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data, input_end = data + size;
    digest = 0xcbf29ce484222325, is_partial = leaves_anything = 0, state = 0;
    const ptrdiff_t which = draw(COUNT(operators));
    name_of_call = operators[which].name;
    operators[which].call();
    close_blocks(0);
    return 0;
}

#ifdef XENT_REPLAY
/* The bytes of a line of hexadecimal numbers; how many. */
static size_t read_line(FILE *file, uint8_t *bytes, size_t most)
{
    size_t size = 0;
    unsigned number;
    while (size < most && fscanf(file, "%2x", &number) == 1) {
        bytes[size++] = (uint8_t)number;
        const int after = fgetc(file);
        if (after == '\n' || after == EOF) break;
        ungetc(after, file);
    }
    return size;
}

int main(int count, char **paths)
{
    static uint8_t bytes[1 << 16];
    FILE *file = count == 2 ? fopen(paths[1], "r") : NULL;
    if (!file) return fprintf(stderr, "usage: %s CORPUS\n", paths[0]), 2;
    for (size_t size, line = 1; (size = read_line(file, bytes, sizeof bytes)) > 0; line++) {
        LLVMFuzzerTestOneInput(bytes, size);
        const ptrdiff_t which = bytes[0] % COUNT(operators);
        printf("%zu: %s: %016llx\n", line, operators[which].name,
               operators[which].same_bits ? (unsigned long long)digest : 0ULL);
    }
    fclose(file);
    return 0;
}
#endif
