// A load that sends whole windows: it sends all frames that may be in flight on a connection in one
// write, and the next window after all of them have come back. The chunks are therefore as large as the
// kernel allows, and the load needs little CPU time.
//
//   burst PORT[,PORT...] CONNECTIONS WINDOW FIRST_BYTE SIZE RAW FAN_OUT
//
// Each line of input is a number of messages; the answer is the number that has come back. RAW is 1 if
// the server echoes bytes and does not parse frames. With FAN_OUT 1 only the first connection sends, and
// its messages come back on all connections. FAN_OUT 2 is the same for a server of Socket.IO: the messages
// are events "p" with one string, and come back as events "m". The connections are spread over the ports.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <fcntl.h>

#define CHUNK (1 << 20)

struct lane {
  int fd;
  size_t unsent;   // bytes of the window that have not been sent
  size_t missing;  // bytes of echoes that have not come back
  long windows;    // windows that have not been sent
};

static const unsigned char KEY[4] = {0x37, 0xfa, 0x21, 0x3d};
#define FIELDS                                                                      \
  " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" \
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
static const char REQUEST[] = "GET /" FIELDS;
static const char SOCKET_IO_REQUEST[] = "GET /socket.io/?EIO=4&transport=websocket" FIELDS;

static unsigned char *window_bytes, *echo_bytes, *chunk;
static size_t window_size, echo_size;
static int poller;
static int is_socket_io = 0;
static int is_verifying = 1;  // compares the whole first window, and the start of each chunk of later ones

static void fail(const char *what) {
  fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
  exit(1);
}

// Encodes a frame (RFC 6455 section 5.2). Its payload is `before`, `length` letters, and `after`.
static size_t frame(unsigned char *out, int first, const char *before, size_t length, const char *after,
                    int masked) {
  size_t start = strlen(before), size = start + length + strlen(after);
  size_t n = 0;
  unsigned char mask = masked ? 0x80 : 0;
  out[n++] = first;
  if (size < 126) {
    out[n++] = mask | size;
  } else if (size < 65536) {
    out[n++] = mask | 126;
    out[n++] = size >> 8;
    out[n++] = size & 255;
  } else {
    out[n++] = mask | 127;
    for (int shift = 56; shift >= 0; shift -= 8) out[n++] = (uint64_t)size >> shift & 255;
  }
  if (masked) {
    memcpy(out + n, KEY, 4);
    n += 4;
  }
  for (size_t i = 0; i < size; i++) {
    size_t at = i - start;
    unsigned char byte = i < start ? before[i] : at < length ? 'a' + (at + (at >> 8)) % 26 : after[at - length];
    out[n++] = masked ? byte ^ KEY[i & 3] : byte;
  }
  return n;
}

static size_t frames(unsigned char **bytes, int count, int first, size_t size, int masked) {
  const char *before = !is_socket_io ? "" : masked ? "42[\"p\",\"" : "42[\"m\",\"";
  *bytes = malloc(count * (size + 32));
  size_t n = 0;
  for (int i = 0; i < count; i++) n += frame(*bytes + n, first, before, size, is_socket_io ? "\"]" : "", masked);
  return n;
}

static void read_all(int fd, void *to, size_t size) {
  for (ssize_t got; size > 0; to = (char *)to + got, size -= got) {
    if ((got = read(fd, to, size)) <= 0) fail("read");
  }
}

// Reads a text frame that begins with `start`.
static void expect(int fd, const char *start) {
  unsigned char head[2], longer[2];
  read_all(fd, head, 2);
  size_t size = head[1];
  if (size >= 127) fail("an unexpected frame");
  if (size == 126) {
    read_all(fd, longer, 2);
    size = longer[0] << 8 | longer[1];
  }
  read_all(fd, chunk, size);
  if (size < strlen(start) || memcmp(chunk, start, strlen(start)) != 0) fail("an unexpected packet");
}

// Joins the main namespace of Socket.IO.
static void join_socket_io(int fd) {
  unsigned char join[16];
  size_t size = frame(join, 0x81, "40", 0, "", 1);
  expect(fd, "0{");
  if (write(fd, join, size) != (ssize_t)size) fail("write");
  expect(fd, "40{");
}

static void open_lane(struct lane *lane, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  lane->fd = socket(AF_INET, SOCK_STREAM, 0);
  int on = 1;
  setsockopt(lane->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(lane->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  const char *request = is_socket_io ? SOCKET_IO_REQUEST : REQUEST;
  if (write(lane->fd, request, strlen(request)) != (ssize_t)strlen(request)) fail("write");
  char head[4096];
  size_t n = 0;
  do {
    ssize_t got = read(lane->fd, head + n, 1);
    if (got <= 0 || ++n == sizeof head) fail("handshake");
  } while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0);
  if (memcmp(head, "HTTP/1.1 101", 12) != 0) fail("refused");
  if (is_socket_io) join_socket_io(lane->fd);
  fcntl(lane->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = lane};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, lane->fd, &event) < 0) fail("epoll_ctl");
}

static void watch(struct lane *lane) {
  struct epoll_event event = {.events = EPOLLIN | (lane->unsent ? EPOLLOUT : 0), .data.ptr = lane};
  if (epoll_ctl(poller, EPOLL_CTL_MOD, lane->fd, &event) < 0) fail("epoll_ctl");
}

static void send_rest(struct lane *lane) {
  int waited = lane->unsent != window_size;
  while (lane->unsent > 0) {
    ssize_t sent = send(lane->fd, window_bytes + window_size - lane->unsent, lane->unsent, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) fail("send");
    lane->unsent -= sent;
  }
  if (waited || lane->unsent > 0) watch(lane);
}

static void next_window(struct lane *lane) {
  lane->windows--;
  lane->missing = echo_size;
  lane->unsent = window_size;
  send_rest(lane);
}

// Reads and compares received data; returns 1 if the lane has nothing left to do.
static int receive(struct lane *lane) {
  for (;;) {
    ssize_t got = recv(lane->fd, chunk, CHUNK, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) fail("the server has ended the connection");
    if ((size_t)got > lane->missing) fail("more came than was sent");
    if (memcmp(chunk, echo_bytes + echo_size - lane->missing, is_verifying || got < 64 ? (size_t)got : 64) != 0) fail("not an echo");
    lane->missing -= got;
    if (lane->missing > 0) continue;
    if (lane->windows == 0) return 1;
    next_window(lane);
  }
}

static void wait_for(int busy) {
  struct epoll_event events[64];
  while (busy > 0) {
    int ready = epoll_wait(poller, events, 64, -1);
    if (ready < 0) fail("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct lane *lane = events[i].data.ptr;
      if (lane->unsent > 0 && events[i].events & EPOLLOUT) send_rest(lane);
      if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) busy -= receive(lane);
    }
  }
}

// Sends windows until each lane has sent its share.
static void run(struct lane *lanes, int count, long windows) {
  int busy = count;
  for (int i = 0; i < count; i++) {
    lanes[i].windows = windows;
    next_window(&lanes[i]);
  }
  wait_for(busy);
}

// Sends windows only on the first lane, each after the previous one has come back on all lanes.
static void fan_out(struct lane *lanes, int count, long windows) {
  for (long sent = 0; sent < windows; sent++) {
    for (int i = 1; i < count; i++) lanes[i].missing = echo_size;
    lanes[0].windows = 1;
    next_window(&lanes[0]);
    wait_for(count);
  }
}
int main(int argc, char **argv) {
  if (argc != 8) {
    fprintf(stderr, "burst PORT[,PORT...] CONNECTIONS WINDOW FIRST_BYTE SIZE RAW FAN_OUT\n");
    return 2;
  }
  int ports[16], port_count = 0, connections = atoi(argv[2]), window = atoi(argv[3]);
  for (char *port = strtok(argv[1], ","); port && port_count < 16; port = strtok(NULL, ",")) {
    ports[port_count++] = atoi(port);
  }
  int first = atoi(argv[4]), raw = atoi(argv[6]), is_fan_out = atoi(argv[7]);
  void (*work)(struct lane *, int, long) = is_fan_out ? fan_out : run;
  size_t size = atol(argv[5]);
  is_socket_io = is_fan_out == 2;
  window_size = frames(&window_bytes, window, first, size, 1);
  echo_size = frames(&echo_bytes, window, first, size, raw);
  chunk = malloc(CHUNK);
  poller = epoll_create1(0);
  struct lane *lanes = calloc(connections, sizeof *lanes);
  for (int i = 0; i < connections; i++) open_lane(&lanes[i], ports[i % port_count]);
  // The servers need time to subscribe, and do not tell when they have.
  if (port_count > 1) sleep(1);
  work(lanes, connections, 1);
  is_verifying = 0;
  puts("0");
  fflush(stdout);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    long each = (long)connections * window;
    long windows = (atol(line) + each - 1) / each;
    if (windows < 1) windows = 1;
    work(lanes, connections, windows);
    printf("%ld\n", windows * each);
    fflush(stdout);
  }
  return 0;
}
