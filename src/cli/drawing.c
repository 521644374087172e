#include "drawing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/io_error.h"
#include "common/replace_file.h"

#ifdef CLI_HAS_PNG
#include <png.h>
#endif

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Rows and columns [begin, end). */
typedef struct area {
    int64_t row_begin, row_end;
    int64_t column_begin, column_end;
} area;

/* The share of an area that is visible; 0 for an area past the end. */
static double share_seen(const cli_picture *picture, area at) {
    int64_t row_end = smaller(at.row_end, picture->seq_q);
    int64_t column_end = smaller(at.column_end, picture->seq_k);
    int64_t seen = 0, all = 0;
    for (int64_t i = at.row_begin; i < row_end; i++)
        for (int64_t j = at.column_begin; j < column_end; j++) {
            seen += picture->mask[i * picture->seq_k + j] == 0.0f;
            all++;
        }
    return all > 0 ? (double)seen / (double)all : 0.0;
}

/* ---- terminal ---- */

static int64_t terminal_width(void) {
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 8)
        return size.ws_col;
    return 80;
}

static void draw_border(const char *left, const char *right, int64_t columns) {
    fputs(left, stdout);
    for (int64_t n = 0; n < columns; n++)
        fputs("─", stdout);
    puts(right);
}

/* One character for two areas, one above the other: blocks if each is completely visible or
 * completely hidden, else a shade. */
static const char *block_of(double upper, double lower) {
    static const char *const blocks[2][2] = {{" ", "▄"}, {"▀", "█"}};
    double mean = (upper + lower) / 2.0;
    if ((upper == 0.0 || upper == 1.0) && (lower == 0.0 || lower == 1.0))
        return blocks[upper == 1.0][lower == 1.0];
    return mean < 1.0 / 3.0 ? "░" : mean < 2.0 / 3.0 ? "▒" : "▓";
}

void cli_draw(const cli_picture *picture) {
    const int64_t width = terminal_width() - 2; /* within the border */
    if (picture->seq_q == 0 || picture->seq_k == 0)
        return;
    /* The side of an area in cells. There may be twice as many areas vertically as columns. */
    int64_t side = 1 + (picture->seq_k - 1) / width;
    if (picture->seq_q > 2 * width * side)
        side = 1 + (picture->seq_q - 1) / (2 * width);
    int64_t columns = 1 + (picture->seq_k - 1) / side;
    draw_border("┌", "┐", columns);
    for (int64_t i = 0; i < picture->seq_q; i += 2 * side) {
        fputs("│", stdout);
        for (int64_t j = 0; j < picture->seq_k; j += side) {
            area upper = {i, i + side, j, j + side};
            area lower = {i + side, i + 2 * side, j, j + side};
            fputs(block_of(share_seen(picture, upper), share_seen(picture, lower)), stdout);
        }
        puts("│");
    }
    draw_border("└", "┘", columns);
}

/* ---- PNG ---- */

#ifdef CLI_HAS_PNG

/* The minimum side of a picture, as far as the mask's aspect ratio allows. */
#define LEAST_SIDE 512
#define LARGEST_SIDE 2048

typedef struct image {
    png_image png;
    png_bytep pixels;
} image;

static bool write_image(int descriptor, const void *user) {
    const image *source = user;
    png_image png = source->png;
    int copy = dup(descriptor);
    FILE *file = copy < 0 ? NULL : fdopen(copy, "wb");
    if (!file) {
        if (copy >= 0)
            close(copy);
        return false;
    }
    errno = 0;
    bool written = png_image_write_to_stdio(&png, file, 0, source->pixels, 0, NULL) != 0;
    int error = errno ? errno : EIO;
    if (fclose(file) != 0 && written) {
        error = errno;
        written = false;
    }
    errno = error;
    return written;
}

/* Paints one pixel for `side` x `side` cells, or `zoom` x `zoom` pixels for one cell. */
static void paint(const cli_picture *picture, int64_t side, int64_t zoom, const image *target) {
    for (int64_t y = 0; y < target->png.height; y++)
        for (int64_t x = 0; x < target->png.width; x++) {
            int64_t i = y / zoom * side, j = x / zoom * side;
            double share = share_seen(picture, (area){i, i + side, j, j + side});
            target->pixels[y * target->png.width + x] = (png_byte)(255.0 * share + 0.5);
        }
}

rw_status cli_write_png(const char *path, const cli_picture *picture, rw_message *message) {
    if (picture->seq_q == 0 || picture->seq_k == 0)
        return rwi_io_fail(message, RW_INVALID_ARGUMENT, "cannot write %.140s: the mask is empty",
                           path);
    int64_t longer = picture->seq_q > picture->seq_k ? picture->seq_q : picture->seq_k;
    int64_t side = 1 + (longer - 1) / LARGEST_SIDE;
    int64_t zoom = longer < LEAST_SIDE ? LEAST_SIDE / longer : 1;
    image target = {.pixels = NULL};
    target.png.version = PNG_IMAGE_VERSION;
    target.png.format = PNG_FORMAT_GRAY;
    target.png.width = (png_uint_32)((1 + (picture->seq_k - 1) / side) * zoom);
    target.png.height = (png_uint_32)((1 + (picture->seq_q - 1) / side) * zoom);
    target.pixels = malloc((size_t)target.png.width * target.png.height);
    if (!target.pixels)
        return rwi_io_fail(message, RW_OUT_OF_MEMORY, "no memory to draw %.140s", path);
    paint(picture, side, zoom, &target);
    const rwi_file_contents contents = {write_image, &target};
    rw_status status = rwi_replace_file(path, &contents, message);
    free(target.pixels);
    return status;
}

#else

rw_status cli_write_png(const char *path, const cli_picture *picture, rw_message *message) {
    (void)picture;
    return rwi_io_fail(message, RW_UNSUPPORTED,
                       "cannot write %.140s: this program was built without libpng", path);
}

#endif
