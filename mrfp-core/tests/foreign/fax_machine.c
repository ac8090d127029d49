/* A fax machine on libspandsp, whose packets go to and come from a UDP socket of its parent, each with its
 * number before it.
 *
 * fax_machine draw FILE          makes an image
 * fax_machine dump FILE          prints one, a line for each row
 * fax_machine call FILE PORT     sends one
 * fax_machine answer FILE PORT   receives one
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <tiffio.h>

#define SPANDSP_EXPOSE_INTERNAL_STRUCTURES
#include <spandsp.h>

enum {
    COLUMNS = 1728,
    ROWS = 400,
    ROW_BYTES = COLUMNS / 8,
    SAMPLES_PER_TICK = 160,
    /* A tick is 20 ms of fax; its clock goes faster than ours. */
    TICK_MICROSECONDS = 4000,
    TICKS_MAX = 10000,
    TICKS_AFTER = 100,
};

static int result = -1;

static int draw(const char *file) {
    TIFF *tiff = TIFFOpen(file, "w");
    if (!tiff) return 1;
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, COLUMNS);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, ROWS);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, 1);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, 1);
    TIFFSetField(tiff, TIFFTAG_COMPRESSION, COMPRESSION_CCITT_T6);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISWHITE);
    TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, ROWS);
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    TIFFSetField(tiff, TIFFTAG_XRESOLUTION, 204.0f);
    TIFFSetField(tiff, TIFFTAG_YRESOLUTION, 98.0f);
    TIFFSetField(tiff, TIFFTAG_RESOLUTIONUNIT, RESUNIT_INCH);
    for (int row = 0; row < ROWS; row++) {
        uint8_t bytes[ROW_BYTES] = {0};
        for (int column = 0; column < COLUMNS; column++) {
            bool is_black = (column / 24 + row / 16) % 7 == 0 || (column + 3 * row) % 311 < 9;
            if (is_black) bytes[column / 8] |= 0x80 >> column % 8;
        }
        if (TIFFWriteScanline(tiff, bytes, row, 0) < 0) return 1;
    }
    TIFFClose(tiff);
    return 0;
}

static int dump(const char *file) {
    TIFF *tiff = TIFFOpen(file, "r");
    if (!tiff) return 1;
    uint32_t columns = 0, rows = 0;
    TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &columns);
    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &rows);
    if (columns != COLUMNS) return 1;
    for (uint32_t row = 0; row < rows; row++) {
        uint8_t bytes[ROW_BYTES];
        if (TIFFReadScanline(tiff, bytes, row, 0) < 0) return 1;
        for (int at = 0; at < ROW_BYTES; at++) printf("%02x", bytes[at]);
        printf("\n");
    }
    TIFFClose(tiff);
    return 0;
}

static int send_packet(t38_core_state_t *core, void *user, const uint8_t *bytes, int length, int count) {
    (void)core;
    (void)count;
    static uint16_t number;
    uint8_t packet[2048];
    if (length < 0 || length > (int)sizeof packet - 2) return -1;
    packet[0] = number >> 8;
    packet[1] = number & 0xff;
    number++;
    memcpy(packet + 2, bytes, length);
    send(*(int *)user, packet, length + 2, 0);
    return 0;
}

static void ended(t30_state_t *t30, void *user, int code) {
    (void)t30;
    (void)user;
    result = code;
}

static int fax(bool calls, const char *file, int port) {
    int socket_of_parent = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_of_parent, (struct sockaddr *)&address, sizeof address)) return 1;
    t38_terminal_state_t *terminal = t38_terminal_init(NULL, calls, send_packet, &socket_of_parent);
    t38_core_state_t *core = t38_terminal_get_t38_core_state(terminal);
    t30_state_t *t30 = t38_terminal_get_t30_state(terminal);
    t38_set_t38_version(core, 0);
    t30_set_phase_e_handler(t30, ended, NULL);
    t30_set_ecm_capability(t30, TRUE);
    t30_set_supported_compressions(t30, T30_SUPPORT_T4_1D_COMPRESSION
        | T30_SUPPORT_T4_2D_COMPRESSION | T30_SUPPORT_T6_COMPRESSION);
    if (calls) {
        t30_set_tx_file(t30, file, -1, -1);
    } else {
        t30_set_rx_file(t30, file, -1);
    }
    int after = 0;
    for (int tick = 0; tick < TICKS_MAX && after < TICKS_AFTER; tick++) {
        uint8_t packet[2048];
        ssize_t length;
        while ((length = recv(socket_of_parent, packet, sizeof packet, MSG_DONTWAIT)) >= 2) {
            t38_core_rx_ifp_packet(core, packet + 2, length - 2, packet[0] << 8 | packet[1]);
        }
        t38_terminal_send_timeout(terminal, SAMPLES_PER_TICK);
        if (result >= 0) after++;
        struct timespec pause = {.tv_nsec = TICK_MICROSECONDS * 1000L};
        nanosleep(&pause, NULL);
    }
    t38_terminal_release(terminal);
    t38_terminal_free(terminal);
    printf("RESULT %d %s\n", result, t30_completion_code_to_str(result));
    return result == 0 ? 0 : 1;
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 3 && !strcmp(words[1], "draw")) return draw(words[2]);
    if (count == 3 && !strcmp(words[1], "dump")) return dump(words[2]);
    if (count == 4) return fax(!strcmp(words[1], "call"), words[2], atoi(words[3]));
    return 2;
}
