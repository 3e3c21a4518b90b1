// A load that sends whole windows: it sends all frames that may be in flight on a connection in one
// write, and the next window after all of them have come back. The chunks are therefore as large as the
// kernel allows, and the load needs little CPU time.
//
//   burst PORT[,PORT...] CONNECTIONS WINDOW FIRST_BYTE SIZE FRAGMENTS RAW MODE
//
// The connections are spread over the ports. RAW is 1 if the server echoes bytes and does not parse frames. Each line of input is a request, and the
// answer is a line of numbers. In all modes but `hold`, the answer is the number of messages that have
// come back, and the 50th, 99th and 99.9th percentile of the microseconds that a window took.
//
//   echo    "MESSAGES": all connections send.
//   fanout  "MESSAGES": only the first connection sends, and its messages come back on all connections.
//   socket.io  The same for a server of Socket.IO: the messages are events "p" with one string, and come
//           back as events "m".
//   paced   "MESSAGES RATE": the messages are due at RATE a second, each on an idle connection. If none is
//           idle, the message is late, and the wait counts. Without RATE: as in the mode `echo`.
//   hold    "PINGS": waits until so many pings were answered. They are answered at any time.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)
// Connections of one source address. The more of its 28,000 ports are used, the longer the kernel searches
// for a free one: 20,000 connections of one address took 8 s of CPU time instead of 1.5.
#define PER_ADDRESS 4000

// Connections that are opened at the same time.
#define AT_ONCE 64

struct lane {
  int fd;
  size_t unsent;   // bytes of the window that have not been sent
  size_t missing;  // bytes of echoes that have not come back
  long windows;    // windows that have not been sent
  double sent;     // when the window was sent, or was due
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
static int is_socket_io = 0, is_hold = 0;
static int is_verifying = 1;  // compares the whole first window, and the start of each chunk of later ones
static long answered;         // pings that were answered

// How long the windows of a request took, in microseconds.
static float *times;
static size_t timed, times_room;

// Lanes that have nothing in flight, in the mode `paced`.
static struct lane **idle;
static int idle_count;

static void fail(const char *what) {
  fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void keep_time(double microseconds) {
  if (timed == times_room) {
    times_room = times_room ? 2 * times_room : 4096;
    times = realloc(times, times_room * sizeof *times);
  }
  times[timed++] = microseconds;
}

static int by_size(const void *a, const void *b) {
  return (*(float *)a > *(float *)b) - (*(float *)a < *(float *)b);
}

static void answer(long messages) {
  qsort(times, timed, sizeof *times, by_size);
  printf("%ld", messages);
  double shares[] = {0.5, 0.99, 0.999};
  for (int i = 0; i < 3; i++) printf(" %.2f", timed ? times[(size_t)((timed - 1) * shares[i])] : 0.0);
  puts("");
  fflush(stdout);
  timed = 0;
}

// Encodes a frame (RFC 6455 section 5.2) of a part of a payload.
static size_t frame(unsigned char *out, int first, const unsigned char *payload, size_t size, int masked) {
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
  for (size_t i = 0; i < size; i++) out[n++] = masked ? payload[i] ^ KEY[i & 3] : payload[i];
  return n;
}

// Encodes messages of `length` letters each.
static size_t frames(unsigned char **bytes, int count, int first, size_t length, int fragments, int masked) {
  const char *before = !is_socket_io ? "" : masked ? "42[\"p\",\"" : "42[\"m\",\"";
  const char *after = is_socket_io ? "\"]" : "";
  size_t start = strlen(before), size = start + length + strlen(after);
  unsigned char *payload = malloc(size + 1);
  memcpy(payload, before, start);
  for (size_t i = 0; i < length; i++) payload[start + i] = 'a' + (i + (i >> 8)) % 26;
  memcpy(payload + start + length, after, strlen(after));
  *bytes = malloc(count * (size + 14 * fragments));
  size_t n = 0, part = size / fragments;
  for (int i = 0; i < count; i++) {
    for (int j = 0; j < fragments; j++) {
      int last = j == fragments - 1;
      int byte = (last ? 0x80 : 0) | (j == 0 ? first & 15 : 0);
      n += frame(*bytes + n, byte, payload + j * part, last ? size - j * part : part, masked);
    }
  }
  free(payload);
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
  size_t size = frame(join, 0x81, (const unsigned char *)"40", 2, 1);
  expect(fd, "0{");
  if (write(fd, join, size) != (ssize_t)size) fail("write");
  expect(fd, "40{");
}

// Connects and sends the request. The kernel accepts the connection, so this does not wait for the server.
static void start_lane(struct lane *lane, int number, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  lane->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (lane->fd < 0) fail("socket");
  int on = 1;
  setsockopt(lane->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (number >= PER_ADDRESS) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number / PER_ADDRESS);
    setsockopt(lane->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(lane->fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind");
  }
  if (connect(lane->fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
  const char *request = is_socket_io ? SOCKET_IO_REQUEST : REQUEST;
  if (write(lane->fd, request, strlen(request)) != (ssize_t)strlen(request)) fail("write");
}

static void open_lane(struct lane *lane) {
  // Something may follow the head only if the server sends pings, or is one of Socket.IO.
  char head[4096];
  size_t n = 0, most = is_socket_io || is_hold ? 1 : sizeof head;
  do {
    ssize_t got = read(lane->fd, head + n, n + most > sizeof head ? sizeof head - n : most);
    if (got <= 0 || (n += got) == sizeof head) fail("handshake");
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

static void next_window(struct lane *lane, double due) {
  lane->windows--;
  lane->missing = echo_size;
  lane->unsent = window_size;
  lane->sent = due;
  send_rest(lane);
}

// Reads and compares received data; returns 1 if the lane has nothing left to do.
static int receive(struct lane *lane) {
  for (;;) {
    ssize_t got = recv(lane->fd, chunk, CHUNK, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) fail("the server has ended the connection");
    if ((size_t)got > lane->missing) fail("more came than was sent");
    size_t compared = is_verifying || got < 64 ? (size_t)got : 64;
    if (memcmp(chunk, echo_bytes + echo_size - lane->missing, compared) != 0) fail("not an echo");
    lane->missing -= got;
    if (lane->missing > 0) continue;
    double time = now();
    keep_time(time - lane->sent);
    if (lane->windows == 0) {
      if (idle) idle[idle_count++] = lane;
      return 1;
    }
    next_window(lane, time);
  }
}

// Handles what has happened, and returns how many lanes have nothing left to do.
static int handle(int timeout) {
  struct epoll_event events[64];
  int done = 0, ready = epoll_wait(poller, events, 64, timeout);
  if (ready < 0) fail("epoll_wait");
  for (int i = 0; i < ready; i++) {
    struct lane *lane = events[i].data.ptr;
    if (lane->unsent > 0 && events[i].events & EPOLLOUT) send_rest(lane);
    if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) done += receive(lane);
  }
  return done;
}

static void wait_for(int busy) {
  while (busy > 0) busy -= handle(-1);
}

// Sends windows until each lane has sent its share.
static void echo(struct lane *lanes, int count, long windows) {
  idle_count = 0;
  for (int i = 0; i < count; i++) {
    lanes[i].windows = windows;
    next_window(&lanes[i], now());
  }
  wait_for(count);
}

// Sends windows only on the first lane, each after the previous one has come back on all lanes.
static void fan_out(struct lane *lanes, int count, long windows) {
  for (long sent = 0; sent < windows; sent++) {
    double time = now();
    for (int i = 1; i < count; i++) {
      lanes[i].missing = echo_size;
      lanes[i].sent = time;
    }
    lanes[0].windows = 1;
    next_window(&lanes[0], time);
    wait_for(count);
  }
}

// Sends single windows at a steady rate. All lanes are idle before and after.
static void paced(int count, long messages, double rate) {
  double start = now();
  for (long sent = 0; sent < messages; sent++) {
    double due = start + sent * 1e6 / rate;
    while (now() < due || idle_count == 0) handle(0);
    struct lane *lane = idle[--idle_count];
    lane->windows = 1;
    next_window(lane, due);
  }
  while (idle_count < count) handle(0);
}

static void answer_pings(int fd) {
  ssize_t got = recv(fd, chunk, CHUNK, 0);
  if (got <= 0) fail("the server has ended the connection");
  for (ssize_t at = 0; at < got;) {
    size_t size = chunk[at + 1];
    if (chunk[at] != 0x89 || size > 125 || at + 2 + (ssize_t)size > got) fail("not a whole ping");
    unsigned char pong[131] = {0x8a, 0x80 | size, KEY[0], KEY[1], KEY[2], KEY[3]};
    for (size_t i = 0; i < size; i++) pong[6 + i] = chunk[at + 2 + i] ^ KEY[i & 3];
    if (send(fd, pong, 6 + size, MSG_NOSIGNAL) != (ssize_t)(6 + size)) fail("send");
    at += 2 + size;
    answered++;
  }
}

// Answers the pings that have come. Returns whether there is a request.
static int handle_pings(int timeout) {
  struct epoll_event events[64];
  int is_asked = 0, ready = epoll_wait(poller, events, 64, timeout);
  if (ready < 0) fail("epoll_wait");
  for (int i = 0; i < ready; i++) {
    struct lane *lane = events[i].data.ptr;
    if (lane) answer_pings(lane->fd);
    else is_asked = 1;
  }
  return is_asked;
}

// Answers pings until the input ends, also while nothing is asked.
static void hold(void) {
  long goal = 0, from = 0;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0) fail("epoll_ctl");
  for (;;) {
    if (handle_pings(-1)) {
      char line[64] = {0};
      if (read(0, line, sizeof line - 1) <= 0) return;
      from = answered;
      goal = from + atol(line);
    }
    if (goal > 0 && answered >= goal) {
      answer(answered - from);
      goal = 0;
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 9) {
    fprintf(stderr, "burst PORT[,PORT...] CONNECTIONS WINDOW FIRST_BYTE SIZE FRAGMENTS RAW MODE\n");
    return 2;
  }
  int ports[16], port_count = 0, connections = atoi(argv[2]), window = atoi(argv[3]);
  for (char *port = strtok(argv[1], ","); port && port_count < 16; port = strtok(NULL, ",")) {
    ports[port_count++] = atoi(port);
  }
  int first = atoi(argv[4]), fragments = atoi(argv[6]), raw = atoi(argv[7]);
  size_t size = atol(argv[5]);
  const char *mode = argv[8];
  is_socket_io = strcmp(mode, "socket.io") == 0;
  is_hold = strcmp(mode, "hold") == 0;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  window_size = frames(&window_bytes, window, first, size, fragments, 1);
  // A pong answers a ping. A fragmented message comes back whole.
  int first_of_echo = first == 0x89 && !raw ? 0x8a : first;
  echo_size = frames(&echo_bytes, window, first_of_echo, size, raw ? fragments : 1, raw);
  chunk = malloc(CHUNK);
  poller = epoll_create1(0);
  struct lane *lanes = calloc(connections, sizeof *lanes);
  for (int from = 0; from < connections; from += AT_ONCE) {
    int end = from + AT_ONCE < connections ? from + AT_ONCE : connections;
    for (int i = from; i < end; i++) start_lane(&lanes[i], i, ports[i % port_count]);
    for (int i = from; i < end; i++) open_lane(&lanes[i]);
    if (is_hold) handle_pings(0);
  }
  // The servers need time to subscribe, and do not tell when they have.
  if (port_count > 1) sleep(1);
  if (is_hold) {
    answer(0);
    hold();
    return 0;
  }
  int is_fan_out = is_socket_io || strcmp(mode, "fanout") == 0;
  if (strcmp(mode, "paced") == 0) idle = calloc(connections, sizeof *idle);
  void (*work)(struct lane *, int, long) = is_fan_out ? fan_out : echo;
  work(lanes, connections, 1);
  is_verifying = 0;
  answer(0);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    long messages = 0, each = (long)connections * window;
    double rate = 0;
    sscanf(line, "%ld %lf", &messages, &rate);
    if (rate > 0) {
      paced(connections, messages, rate);
      answer(messages);
      continue;
    }
    long windows = (messages + each - 1) / each;
    if (windows < 1) windows = 1;
    work(lanes, connections, windows);
    answer(windows * each);
  }
  return 0;
}
