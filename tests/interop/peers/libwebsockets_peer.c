/* libwebsockets at the other end. agent.py describes the commands and the events. The commands come in
   the order of `peer_process.ts`, as JSON without blanks; values have no escapes besides those of base64. */
#include <errno.h>
#include <libwebsockets.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_PARTS = 512, MAX_SIZE = 1 << 26 };

/* A frame to send. */
struct frame {
  struct frame *next;
  enum lws_write_protocol how;
  bool sent;
  size_t length;
  unsigned char data[]; /* after LWS_PRE bytes */
};

struct end {
  struct end *next;
  int id;
  bool echo, text, cut, is_closing;
  int code;
  char reason[128];
  int told_code;
  char told_reason[128];
  struct lws_context *context;
  struct lws *wsi;
  struct frame *first, *last;
  unsigned char *message;
  size_t length, room;
  int frames;
  char chosen[128];
  size_t max_size;
};

static struct end *ends;

static void tell(struct end *end, const char *event, const char *rest) {
  printf("{\"end\":%d,\"event\":\"%s\"%s%s}\n", end->id, event, *rest ? "," : "", rest);
  fflush(stdout);
}

/* Text as a JSON string. */
static char *quoted(const char *text) {
  char *out = malloc(strlen(text) * 6 + 3), *at = out;
  *at++ = '"';
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (c == '"' || c == '\\') at += sprintf(at, "\\%c", c);
    else if (c < 32) at += sprintf(at, "\\u%04x", c);
    else *at++ = (char)c;
  }
  *at++ = '"';
  *at = 0;
  return out;
}

static char *base64(const unsigned char *data, size_t length) {
  size_t size = length / 3 * 4 + 8;
  char *out = malloc(size);
  lws_b64_encode_string((const char *)data, (int)length, out, (int)size);
  return out;
}

/* The value of a member, as it is in the line. */
static const char *member(const char *line, const char *name) {
  char key[32];
  snprintf(key, sizeof key, "\"%s\":", name);
  const char *at = strstr(line, key);
  return at == NULL ? NULL : at + strlen(key);
}

static long number(const char *line, const char *name, long otherwise) {
  const char *at = member(line, name);
  return at == NULL ? otherwise : atol(at);
}

static bool is_true(const char *line, const char *name) {
  const char *at = member(line, name);
  return at != NULL && !strncmp(at, "true", 4);
}

/* A string, from where it begins to the next quote. */
static char *string_at(const char *at) {
  const char *end = strchr(at + 1, '"');
  return strndup(at + 1, (size_t)(end - at - 1));
}

static char *string(const char *line, const char *name) {
  const char *at = member(line, name);
  return at == NULL || *at != '"' ? NULL : string_at(at);
}

static void add_frame(struct end *end, const unsigned char *data, size_t length,
                      enum lws_write_protocol how) {
  struct frame *frame = malloc(sizeof *frame + LWS_PRE + length + 16);
  frame->next = NULL;
  frame->how = how;
  frame->sent = false;
  frame->length = length;
  if (length > 0) memcpy(frame->data + LWS_PRE, data, length);
  if (end->last == NULL) end->first = frame;
  else end->last->next = frame;
  end->last = frame;
  if (end->wsi != NULL) lws_callback_on_writable(end->wsi);
}

/* The bytes of a string in base64. */
static size_t decoded(const char *text, unsigned char **data) {
  size_t size = strlen(text) + 4;
  *data = malloc(size);
  int length = lws_b64_decode_string(text, (char *)*data, (int)size);
  return length < 0 ? 0 : (size_t)length;
}

/* Reads an array of strings. */
static int strings(const char *line, const char *name, char **all) {
  const char *at = member(line, name);
  int count = 0;
  if (at == NULL || *at != '[') return 0;
  at++;
  while (*at == '"' && count < MOST_PARTS) {
    all[count] = string_at(at);
    at += strlen(all[count++]) + 2;
    if (*at == ',') at++;
  }
  return count;
}

static void send_ping(struct end *end, const char *text, enum lws_write_protocol how) {
  unsigned char *data;
  size_t length = decoded(text, &data);
  add_frame(end, data, length, how);
  free(data);
}

static void send_message(struct end *end, const char *line) {
  char *parts[MOST_PARTS], *pings[MOST_PARTS];
  int count = strings(line, "parts", parts), ping_count = strings(line, "pings", pings);
  bool text = !strcmp(string(line, "type"), "text");
  for (int i = 0; i < count; i++) {
    unsigned char *data;
    size_t length = decoded(parts[i], &data);
    int how = i > 0 ? LWS_WRITE_CONTINUATION : text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY;
    if (i < count - 1) how |= LWS_WRITE_NO_FIN;
    add_frame(end, data, length, how);
    free(data);
    free(parts[i]);
    if (i < ping_count) send_ping(end, pings[i], LWS_WRITE_PING);
  }
  for (int i = 0; i < ping_count; i++) free(pings[i]);
}

static void take(struct end *end) {
  if (end->echo) {
    add_frame(end, end->message, end->length, end->text ? LWS_WRITE_TEXT : LWS_WRITE_BINARY);
  } else {
    char *data = base64(end->message, end->length);
    char *rest = malloc(strlen(data) + 80);
    sprintf(rest, "\"type\":\"%s\",\"data\":\"%s\"", end->text ? "text" : "binary", data);
    tell(end, "message", rest);
    free(rest);
    free(data);
  }
  end->length = 0;
}

static void tell_control(struct end *end, const char *event, const unsigned char *data, size_t length) {
  char *encoded = base64(data, length), rest[256];
  snprintf(rest, sizeof rest, "\"data\":\"%s\"", encoded);
  tell(end, event, rest);
  free(encoded);
}

static void tell_open(struct end *end, struct lws *wsi, bool is_server) {
  char target[512] = "", rest[2048];
  const struct lws_protocols *protocol = lws_get_protocol(wsi);
  const char *name = is_server && strcmp(protocol->name, "none") ? protocol->name : end->chosen;
  if (is_server) {
    int used = lws_hdr_copy(wsi, target, sizeof target, WSI_TOKEN_GET_URI);
    char query[256];
    if (lws_hdr_copy(wsi, query, sizeof query, WSI_TOKEN_HTTP_URI_ARGS) > 0)
      snprintf(target + used, sizeof target - (size_t)used, "?%s", query);
  }
  char *quoted_target = quoted(target);
  snprintf(rest, sizeof rest, "\"protocol\":\"%s\",\"extensions\":[],\"headers\":[],\"target\":%s",
           name, quoted_target);
  free(quoted_target);
  tell(end, "open", rest);
}

static void tell_closed(struct end *end) {
  char *reason = quoted(end->told_reason), rest[512];
  snprintf(rest, sizeof rest, "\"code\":%d,\"reason\":%s", end->told_code, reason);
  free(reason);
  tell(end, "closed", rest);
}

static int callback(struct lws *wsi, enum lws_callback_reasons why, void *user, void *in, size_t length) {
  struct end *end = lws_context_user(lws_get_context(wsi));
  (void)user;
  switch (why) {
    case LWS_CALLBACK_ESTABLISHED:
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
      end->wsi = wsi;
      end->told_code = 1006;
      tell_open(end, wsi, why == LWS_CALLBACK_ESTABLISHED);
      if (end->first != NULL) lws_callback_on_writable(wsi);
      return 0;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR: {
      char *message = quoted(in == NULL ? "error" : in), *rest = malloc(strlen(message) + 32);
      sprintf(rest, "\"message\":%s", message);
      tell(end, "failed", rest);
      free(rest);
      free(message);
      return 0;
    }
    case LWS_CALLBACK_RECEIVE:
    case LWS_CALLBACK_CLIENT_RECEIVE:
      if (lws_is_first_fragment(wsi)) end->text = !lws_frame_is_binary(wsi);
      if (end->length + length > end->max_size) {
        lws_close_reason(wsi, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, NULL, 0);
        return -1;
      }
      if (end->length + length > end->room) {
        end->room = (end->length + length) * 2;
        end->message = realloc(end->message, end->room);
      }
      if (length > 0) memcpy(end->message + end->length, in, length);
      end->length += length;
      if (lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0) take(end);
      return 0;
    case LWS_CALLBACK_RECEIVE_PONG:
    case LWS_CALLBACK_CLIENT_RECEIVE_PONG:
      tell_control(end, "pong", in, length);
      return 0;
    case LWS_CALLBACK_SERVER_WRITEABLE:
    case LWS_CALLBACK_CLIENT_WRITEABLE: {
      struct frame *frame = end->first;
      if (end->cut) return -1;
      if (frame != NULL && frame->sent) {
        /* The compressor may have read from it until now. */
        end->first = frame->next;
        if (end->first == NULL) end->last = NULL;
        free(frame);
        frame = end->first;
      }
      if (frame == NULL) {
        if (!end->is_closing) return 0;
        if (end->code != 0)
          lws_close_reason(wsi, (enum lws_close_status)end->code, (unsigned char *)end->reason,
                           strlen(end->reason));
        return -1;
      }
      frame->sent = true;
      if (lws_write(wsi, frame->data + LWS_PRE, frame->length, frame->how) < 0) return -1;
      lws_callback_on_writable(wsi);
      return 0;
    }
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE: {
      const unsigned char *bytes = in;
      end->told_code = length < 2 ? 1005 : bytes[0] << 8 | bytes[1];
      if (length > 2) {
        memcpy(end->told_reason, bytes + 2, length - 2);
        end->told_reason[length - 2] = 0;
      }
      return 0;
    }
    case LWS_CALLBACK_CLOSED:
    case LWS_CALLBACK_CLIENT_CLOSED:
      if (wsi != end->wsi) return 0;
      end->wsi = NULL;
      /* The code of an answer is not told. */
      if (end->is_closing && end->told_code == 1006 && !end->cut)
        end->told_code = end->code == 0 ? 1005 : end->code;
      tell_closed(end);
      return 0;
    case LWS_CALLBACK_CLIENT_FILTER_PRE_ESTABLISH:
      if (lws_hdr_copy(wsi, end->chosen, sizeof end->chosen, WSI_TOKEN_PROTOCOL) < 0)
        end->chosen[0] = 0;
      return 0;
    default:
      return 0;
  }
}

static const struct lws_extension EXTENSIONS[] = {
    {"permessage-deflate", lws_extension_callback_pm_deflate,
     "permessage-deflate; client_max_window_bits"},
    {NULL, NULL, NULL},
};

/* The list of protocols. A client without subprotocols uses the first. */
static struct lws_protocols *protocol_list(char **names, int count, bool is_server) {
  struct lws_protocols *all = calloc((size_t)count + 2, sizeof *all);
  int at = 0;
  if (is_server) all[at++] = (struct lws_protocols){"none", callback, 0, 65536, 0, NULL, 0};
  for (int i = 0; i < count; i++)
    all[at++] = (struct lws_protocols){names[i], callback, 0, 65536, 0, NULL, 0};
  if (at == 0) all[at++] = (struct lws_protocols){"none", callback, 0, 65536, 0, NULL, 0};
  return all;
}

static void open_end(struct end *end, const char *line, bool is_server) {
  char *names[MOST_PARTS];
  int count = strings(line, "protocols", names);
  struct lws_context_creation_info info = {0};
  end->echo = is_true(line, "echo");
  end->max_size = (size_t)number(line, "maxSize", MAX_SIZE);
  info.user = end;
  info.protocols = protocol_list(names, count, is_server);
  info.port = is_server ? (int)number(line, "port", 0) : CONTEXT_PORT_NO_LISTEN;
  info.iface = "127.0.0.1";
  info.extensions = is_true(line, "compression") ? EXTENSIONS : NULL;
  info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
  if (is_server && member(line, "tls") != NULL) {
    info.ssl_cert_filepath = string(line, "cert");
    info.ssl_private_key_filepath = string(line, "key");
  } else if (is_server) info.options = 0;
  if (!is_server) info.client_ssl_ca_filepath = string(line, "ca");
  end->context = lws_create_context(&info);
  if (end->context == NULL) {
    tell(end, "failed", "\"message\":\"no context\"");
    return;
  }
  if (is_server) {
    char rest[32];
    int port = lws_get_vhost_listen_port(lws_get_vhost_by_name(end->context, "default"));
    snprintf(rest, sizeof rest, "\"port\":%d", port);
    tell(end, "listening", rest);
    return;
  }
  const char *scheme, *address, *path;
  int port;
  char *url = string(line, "url"), target[512], list[512] = "";
  if (lws_parse_uri(url, &scheme, &address, &port, &path) != 0) {
    tell(end, "failed", "\"message\":\"no URL\"");
    return;
  }
  snprintf(target, sizeof target, "/%s", path);
  for (int i = 0; i < count; i++)
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", names[i]);
  struct lws_client_connect_info client = {0};
  client.context = end->context;
  client.address = address;
  client.port = port;
  client.path = target;
  client.host = address;
  client.origin = address;
  client.protocol = count > 0 ? list : NULL;
  if (count == 0) client.local_protocol_name = "none";
  client.ssl_connection = strcmp(scheme, "wss") ? 0 : LCCSCF_USE_SSL;
  lws_client_connect_via_info(&client);
}

static void obey(const char *line) {
  int id = (int)number(line, "end", 0);
  char *name = string(line, "do");
  struct end **place = &ends, *end;
  while (*place != NULL && (*place)->id != id) place = &(*place)->next;
  if (*place == NULL) {
    *place = calloc(1, sizeof **place);
    (*place)->id = id;
  }
  end = *place;
  if (!strcmp(name, "listen") || !strcmp(name, "connect")) open_end(end, line, *name == 'l');
  else if (!strcmp(name, "send")) send_message(end, line);
  else if (!strcmp(name, "ping")) send_ping(end, string(line, "data"), LWS_WRITE_PING);
  else if (!strcmp(name, "pong")) send_ping(end, string(line, "data"), LWS_WRITE_PONG);
  else if (!strcmp(name, "close")) {
    char *reason = string(line, "reason");
    end->is_closing = true;
    end->code = (int)number(line, "code", 0);
    snprintf(end->reason, sizeof end->reason, "%s", reason == NULL ? "" : reason);
    if (end->wsi != NULL) lws_callback_on_writable(end->wsi);
  } else if (!strcmp(name, "abort") && end->wsi != NULL) {
    /* The API only closes with a Close frame: this cuts the socket. */
    end->cut = true;
    shutdown(lws_get_socket_fd(end->wsi), SHUT_RDWR);
  } else if (!strcmp(name, "stop")) {
    *place = end->next;
    end->next = NULL;
    end->wsi = NULL;
    if (end->context != NULL) lws_context_destroy(end->context);
  }
  free(name);
}

int main(void) {
  size_t room = 1 << 20, used = 0;
  char *buffer = malloc(room);
  lws_set_log_level(LLL_ERR, NULL);
  printf("{\"event\":\"version\",\"version\":\"libwebsockets %s\"}\n", lws_get_library_version());
  fflush(stdout);
  for (;;) {
    bool served = false;
    for (struct end *end = ends; end != NULL; end = end->next) {
      if (end->context == NULL) continue;
      for (int i = 0; i < 32 && end->context != NULL; i++) lws_service(end->context, -1);
      served = true;
    }
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, served ? 1 : 1000) <= 0) continue;
    if (used + 1 >= room) buffer = realloc(buffer, room *= 2);
    ssize_t got = read(0, buffer + used, room - used - 1);
    if (got <= 0) return 0;
    used += (size_t)got;
    buffer[used] = 0;
    char *line = buffer, *newline;
    while ((newline = memchr(line, '\n', used - (size_t)(line - buffer))) != NULL) {
      *newline = 0;
      obey(line);
      line = newline + 1;
    }
    used -= (size_t)(line - buffer);
    memmove(buffer, line, used);
  }
}
