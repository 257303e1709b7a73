/*
 * The table of functions of a plane that JavaScript sees (src/io/native.ts types each of them), and nothing else: every function
 * here takes its arguments apart and calls one function of another file. A plane is an external value; the arrays it
 * works on are held until the plane is collected. Results below zero are -errno; wrong arguments throw a TypeError,
 * which only a bug in native.ts can cause.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <node_api.h>
#include <stdlib.h>

#include "call.h"
#include "ed25519.h"
#include "host.h"
#include "links.h"
#include "loop.h"
#include "owners.h"
#include "plane.h"
#include "relay.h"
#include "tcp.h"

enum { HELD_ARRAYS = 7 };

struct held {
  struct plane *plane;
  napi_ref arrays[HELD_ARRAYS];
};

static struct plane *plane_of(struct call *call) {
  void *held = NULL;
  if (napi_get_value_external(call->env, call->argv[0], &held) != napi_ok) call->bad = true;
  return held == NULL ? NULL : ((struct held *)held)->plane;
}

/* ---- life ---- */

static void collect(napi_env env, void *data, void *hint) {
  struct held *held = data;
  (void)hint;
  wakeups_stop(held->plane);
  plane_close(held->plane);
  plane_free(held->plane);
  for (int i = 0; i < HELD_ARRAYS; i++)
    if (held->arrays[i] != NULL) napi_delete_reference(env, held->arrays[i]);
  free(held);
}

/* create(outRows, outArena, inRows, inArena, counters, keyStats, status) */
static napi_value create(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct held *held = calloc(1, sizeof *held);
  struct plane *plane = plane_create();
  napi_value external = NULL;
  if (held == NULL || plane == NULL || napi_create_external(env, held, NULL, NULL, &external) != napi_ok) {
    napi_throw_error(env, NULL, "out of memory");
    if (plane != NULL) plane_free(plane);
    free(held);
    return NULL;
  }
  held->plane = plane;
  plane->out_rows = array_of(&call, 0, napi_int32_array, MAX_ROWS * ROW_WORDS, NULL);
  plane->out_arena = array_of(&call, 1, napi_uint8_array, 2 * MAX_IP_PACKET, &plane->out_bytes);
  plane->in_rows = array_of(&call, 2, napi_int32_array, MAX_ROWS * ROW_WORDS, NULL);
  plane->in_arena = array_of(&call, 3, napi_uint8_array, (size_t)RECEIVE_SLOTS * RECEIVE_STRIDE, &plane->in_bytes);
  plane->counters = array_of(&call, 4, napi_float64_array, COUNTER_COUNT, NULL);
  plane->key_stats = array_of(&call, 5, napi_float64_array, (size_t)MAX_KEY_SLOTS * KEY_STAT_COUNT, NULL);
  plane->status = array_of(&call, 6, napi_int32_array, STATUS_WORDS, NULL);
  for (int i = 0; i < HELD_ARRAYS && !call.bad; i++)
    call.bad = napi_create_reference(env, call.argv[i], 1, &held->arrays[i]) != napi_ok;
  if (call.bad || napi_add_finalizer(env, external, held, collect, NULL, NULL) != napi_ok) {
    collect(env, held, NULL);
    return bad_call(&call);
  }
  return external;
}

static napi_value close_plane(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  wakeups_stop(plane);
  plane_close(plane);
  return integer(&call, 0);
}

/* openTun(plane, name): the interface's name, or -errno */
static napi_value open_tun(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  char name[17] = {0}; /* one more than the kernel takes, to notice what is too long */
  text_of(&call, 1, name, sizeof name);
  if (call.bad) return bad_call(&call);
  int error = tun_open(plane, name);
  return error < 0 ? integer(&call, error) : text(&call, name);
}

/* adoptTun(plane, fd, name): the device of this name as an earlier process opened it */
static napi_value adopt_tun(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int fd = int_of(&call, 1);
  char name[17] = {0};
  text_of(&call, 2, name, sizeof name);
  return call.bad ? bad_call(&call) : integer(&call, tun_adopt(plane, fd, name));
}

/* tunDescriptor(plane): for a service manager to keep; -1 without a device */
static napi_value tun_descriptor(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  return call.bad ? bad_call(&call) : integer(&call, plane->tun_fd);
}

/* openUdp(plane, address, port): the port bound, or -errno */
static napi_value open_udp(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  char address[64];
  text_of(&call, 1, address, sizeof address);
  int port = int_of(&call, 2);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 wanted;
  int error = udp_parse_address(address, port, &wanted);
  return integer(&call, error < 0 ? error : udp_open(plane, &wanted));
}

/* attachTun(plane, fd, hasUso): any descriptor that keeps packet boundaries, for tests without privileges */
static napi_value attach_tun(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int fd = int_of(&call, 1);
  bool has_uso = bool_of(&call, 2);
  if (call.bad) return bad_call(&call);
  plane->tun_fd = fd;
  plane->has_uso = has_uso;
  return integer(&call, 0);
}

/* startPolling(plane, onTunReadable, onUdpReadable, onUdpWritable) */
static napi_value start_polling(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  return integer(&call, wakeups_start(env, plane, call.argv[1], call.argv[2], call.argv[3]));
}

/* stopPolling(plane): no callback is called any more */
static napi_value stop_polling(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  wakeups_stop(plane);
  return NULL;
}

static napi_value limit_unsent(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int bytes = int_of(&call, 1);
  if (call.bad || bytes <= 0) return bad_call(&call);
  return integer(&call, udp_limit_unsent(plane, bytes));
}

/* countOverflow(plane): what the sockets had no room for is in the counters now */
static napi_value count_overflow(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  udp_count_overflow(plane);
  return NULL;
}

/* ---- batches ---- */

static napi_value read_tun(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  return integer(&call, tun_read(plane));
}

static napi_value seal_and_send_rows(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int count = int_of(&call, 1);
  if (call.bad) return bad_call(&call);
  seal_and_send(plane, count);
  wakeups_watch_writable(plane);
  return NULL;
}

static napi_value receive_and_open_rows(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  return integer(&call, receive_and_open(plane));
}

static napi_value write_tun(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int count = int_of(&call, 1);
  if (call.bad) return bad_call(&call);
  tun_write(plane, count);
  return NULL;
}

/* takeRun(plane, row, into): bytes */
static napi_value take_run(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int row = int_of(&call, 1);
  struct bytes into = bytes_of(&call, 2, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, tun_take_run(plane, row, (uint8_t *)into.at, into.length));
}

static napi_value write_tun_packet(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  struct bytes packet = bytes_of(&call, 1, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, tun_write_packet(plane, packet.at, packet.length));
}

/* sendDatagram(plane, address, port, bytes, mayBreak) */
static napi_value send_datagram(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  char address[64];
  text_of(&call, 1, address, sizeof address);
  int port = int_of(&call, 2);
  struct bytes datagram = bytes_of(&call, 3, 0);
  bool may_break = bool_of(&call, 4);
  if (call.bad) return bad_call(&call);
  struct sockaddr_in6 to;
  int error = udp_parse_address(address, port, &to);
  if (error < 0) return integer(&call, error);
  bool queued = udp_queue_datagram(plane, &to, datagram.at, datagram.length, may_break);
  wakeups_watch_writable(plane);
  return integer(&call, queued ? 0 : -ENOBUFS);
}

/* ---- keys and endpoints ---- */

/*
 * installKey(plane, slot, key, sendPrefix, firstCounter, localNode, peerNode, sendHeader, receiveHeader, bindSender,
 *            receiveKey, receivePrefix), the last two empty for one key in both directions
 */
static napi_value install_key(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t slot = int_of(&call, 1);
  double first_counter = double_of(&call, 4);
  if (!(first_counter >= 1 && first_counter <= (double)MAX_COUNTER)) call.bad = true;
  bool is_shared = bytes_of(&call, 10, 0).length == 0 && bytes_of(&call, 11, 0).length == 0;
  struct key_spec spec = {
    .key = bytes_exactly(&call, 2, 32),
    .send_prefix = bytes_exactly(&call, 3, 4),
    .first_counter = call.bad ? 0 : (uint64_t)first_counter,
    .local_node = uint_of(&call, 5),
    .peer_node = uint_of(&call, 6),
    .send_header = bytes_exactly(&call, 7, VIRTUAL_HEADER),
    .receive_header = bytes_exactly(&call, 8, VIRTUAL_HEADER),
    .bind_sender = bool_of(&call, 9),
    .receive_key = is_shared ? NULL : bytes_exactly(&call, 10, 32),
    .receive_prefix = is_shared ? NULL : bytes_exactly(&call, 11, 4),
  };
  if (call.bad) return bad_call(&call);
  return integer(&call, key_install(plane, slot, &spec));
}

static napi_value remove_key(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t slot = int_of(&call, 1);
  if (call.bad) return bad_call(&call);
  return number(&call, (double)key_remove(plane, slot));
}

/* setEndpoint(plane, slot, address, port, prefix) */
static napi_value set_endpoint(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t slot = int_of(&call, 1);
  char address[64];
  text_of(&call, 2, address, sizeof address);
  int port = int_of(&call, 3);
  struct bytes prefix = bytes_of(&call, 4, 0);
  if (call.bad || slot < 0 || slot >= MAX_ENDPOINT_SLOTS || prefix.length > MAX_PREFIX) return bad_call(&call);
  struct endpoint endpoint = {.used = true, .prefix_length = (uint8_t)prefix.length};
  int error = udp_parse_address(address, port, &endpoint.address);
  if (error < 0) return integer(&call, error);
  if (prefix.length > 0) memcpy(endpoint.prefix, prefix.at, prefix.length);
  plane->endpoints[slot] = endpoint;
  return integer(&call, 0);
}

static napi_value bind_key(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t key_slot = int_of(&call, 1), endpoint_slot = int_of(&call, 2);
  if (call.bad || endpoint_slot < NONE || endpoint_slot >= MAX_ENDPOINT_SLOTS) return bad_call(&call);
  struct key *key = key_at(plane, key_slot);
  if (key != NULL) key->endpoint_slot = endpoint_slot;
  return integer(&call, 0);
}

/* setRelay(plane, address, port); an empty address means none */
static napi_value set_relay(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  char address[64];
  text_of(&call, 1, address, sizeof address);
  int port = int_of(&call, 2);
  if (call.bad) return bad_call(&call);
  plane->has_relay = address[0] != 0;
  return integer(&call, plane->has_relay ? udp_parse_address(address, port, &plane->relay) : 0);
}

static void format_address(const struct sockaddr_in6 *address, char out[INET6_ADDRSTRLEN]) {
  const uint8_t *bytes = address->sin6_addr.s6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&address->sin6_addr)) inet_ntop(AF_INET, bytes + 12, out, INET6_ADDRSTRLEN);
  else inet_ntop(AF_INET6, bytes, out, INET6_ADDRSTRLEN);
}

/* source(plane, index): { address, port } */
static napi_value source(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t index = int_of(&call, 1);
  if (call.bad || index < 0 || index >= RECEIVE_SLOTS) return bad_call(&call);
  const struct sockaddr_in6 *from = &plane->slots[index].from;
  char address[INET6_ADDRSTRLEN];
  format_address(from, address);
  napi_value endpoint = NULL;
  napi_create_object(env, &endpoint);
  napi_set_named_property(env, endpoint, "address", text(&call, address));
  napi_set_named_property(env, endpoint, "port", integer(&call, ntohs(from->sin6_port)));
  return endpoint;
}

/* seal(plane, keySlot, virtualPacket, frame): 0 or -errno; `frame` is 36 bytes longer than the packet */
static napi_value seal(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t slot = int_of(&call, 1);
  struct bytes packet = bytes_of(&call, 2, VIRTUAL_HEADER), frame = bytes_of(&call, 3, 0);
  if (call.bad || frame.length != packet.length + FRAME_OVERHEAD) return bad_call(&call);
  struct key *key = key_at(plane, slot);
  if (key == NULL) return integer(&call, -ENOENT);
  memcpy(frame.at + FRAME_HEADER, packet.at, packet.length);
  return integer(&call, seal_frame(plane, key, frame.at, packet.length) ? 0 : -EIO);
}

/* queueVirtual(plane, keySlot, endpointSlot, header, payload, segmentBytes) */
static napi_value queue_virtual(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t key_slot = int_of(&call, 1), endpoint_slot = int_of(&call, 2);
  struct bytes header = bytes_of(&call, 3, VIRTUAL_HEADER), payload = bytes_of(&call, 4, 0);
  uint32_t segment_bytes = uint_of(&call, 5);
  if (call.bad || segment_bytes == 0 || segment_bytes > MAX_DATAGRAM) return bad_call(&call);
  struct virtual_run run = {header.at, payload.at, payload.length, segment_bytes};
  seal_virtual_run(plane, key_slot, endpoint_slot, &run);
  return NULL;
}

/* flush(plane) */
static napi_value flush(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  if (call.bad) return bad_call(&call);
  udp_flush(plane);
  wakeups_watch_writable(plane);
  return NULL;
}

/* sendStaged(plane, keySlot, endpointSlot, bytes, gsoType, gsoSize, csumStart, csumOffset, headerLength) */
static napi_value send_staged(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  int32_t key_slot = int_of(&call, 1), endpoint_slot = int_of(&call, 2);
  struct bytes bytes = bytes_of(&call, 3, 0);
  struct packet packet = {
    .bytes = bytes.at,
    .length = (uint32_t)bytes.length,
    .gso_type = int_of(&call, 4),
    .gso_size = int_of(&call, 5),
    .csum_start = int_of(&call, 6),
    .csum_offset = int_of(&call, 7),
    .header_length = int_of(&call, 8),
  };
  if (call.bad || bytes.length > MAX_IP_PACKET) return bad_call(&call);
  seal_packet(plane, key_slot, endpoint_slot, &packet);
  udp_flush(plane);
  wakeups_watch_writable(plane);
  return NULL;
}

/* ---- for tests: the parts by themselves ---- */

static napi_value crc32_bytes(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes bytes = bytes_of(&call, 0, 0);
  if (call.bad) return bad_call(&call);
  return number(&call, crc32_of(bytes.at, bytes.length));
}

/* The checksum as it would be stored, in network order. */
static napi_value checksum_bytes(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct bytes bytes = bytes_of(&call, 0, 0);
  if (call.bad) return bad_call(&call);
  return integer(&call, ntohs((uint16_t)~checksum_fold(checksum_add(0, bytes.at, bytes.length))));
}

/* inject(plane, datagrams, segmentBytes, address, port): as if received together; -ENOBUFS while others wait */
static napi_value inject(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  struct bytes datagrams = bytes_of(&call, 1, 0);
  int32_t segment_bytes = int_of(&call, 2);
  char address[64];
  text_of(&call, 3, address, sizeof address);
  int port = int_of(&call, 4);
  if (call.bad || datagrams.length > MAX_IP_PACKET || segment_bytes < 0) return bad_call(&call);
  if (plane->slot_next >= plane->slots_filled) plane->slot_next = plane->slots_filled = 0;
  if (plane->slot_next > 0 || plane->slot_offset > 0 || plane->slots_filled == RECEIVE_SLOTS)
    return integer(&call, -ENOBUFS);
  struct receive_slot *slot = &plane->slots[plane->slots_filled];
  int error = udp_parse_address(address, port, &slot->from);
  if (error < 0) return integer(&call, error);
  slot->bytes = (uint32_t)datagrams.length;
  slot->segment_bytes = segment_bytes == 0 ? slot->bytes : (uint32_t)segment_bytes;
  if (datagrams.length > 0) memcpy(receive_slot_bytes(plane, plane->slots_filled), datagrams.at, datagrams.length);
  return integer(&call, ++plane->slots_filled);
}

/* takeQueued(plane): what a plane without a socket would have sent, as [bytes, frameBytes, ...] by message */
static napi_value take_queued(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  struct plane *plane = plane_of(&call);
  napi_value list = NULL;
  if (call.bad || plane->udp_fd >= 0) return bad_call(&call);
  struct send_queue *queue = &plane->send;
  napi_create_array(env, &list);
  for (int i = queue->head; i < queue->count; i++) {
    const struct send_message *message = &queue->messages[i];
    napi_value bytes = NULL;
    napi_create_buffer_copy(env, message->bytes, queue->buffer + message->offset, NULL, &bytes);
    napi_set_element(env, list, (uint32_t)(i - queue->head) * 2, bytes);
    napi_set_element(env, list, (uint32_t)(i - queue->head) * 2 + 1, integer(&call, message->frame_bytes));
  }
  queue->head = queue->count = 0;
  queue->used = 0;
  return list;
}

/* packetPair(): two connected descriptors that keep packet boundaries, the first not blocking */
static napi_value packet_pair(napi_env env, napi_callback_info info) {
  struct call call = call_of(env, info);
  int fds[2], bytes = 8 << 20;
  napi_value list = NULL;
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) return integer(&call, -errno);
  for (int i = 0; i < 2; i++) {
    setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    setsockopt(fds[i], SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  }
  napi_create_array(env, &list);
  for (uint32_t i = 0; i < 2; i++) napi_set_element(env, list, i, integer(&call, fds[i]));
  return list;
}

static const struct function FUNCTIONS[] = {
  {"create", create},
  {"close", close_plane},
  {"openTun", open_tun},
  {"adoptTun", adopt_tun},
  {"tunDescriptor", tun_descriptor},
  {"openUdp", open_udp},
  {"attachTun", attach_tun},
  {"startPolling", start_polling},
  {"stopPolling", stop_polling},
  {"limitUnsent", limit_unsent},
  {"countOverflow", count_overflow},
  {"readTun", read_tun},
  {"sealAndSend", seal_and_send_rows},
  {"receiveAndOpen", receive_and_open_rows},
  {"writeTun", write_tun},
  {"takeRun", take_run},
  {"writeTunPacket", write_tun_packet},
  {"sendDatagram", send_datagram},
  {"installKey", install_key},
  {"removeKey", remove_key},
  {"setEndpoint", set_endpoint},
  {"bindKey", bind_key},
  {"setRelay", set_relay},
  {"source", source},
  {"seal", seal},
  {"queueVirtual", queue_virtual},
  {"flush", flush},
  {"sendStaged", send_staged},
  {"crc32", crc32_bytes},
  {"checksum", checksum_bytes},
  {"inject", inject},
  {"takeQueued", take_queued},
  {"packetPair", packet_pair},
};

NAPI_MODULE_INIT() {
  bool whole = export_functions(env, exports, FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS) &&
               relay_export(env, exports) && tcp_export(env, exports) && host_export(env, exports) &&
               owners_export(env, exports) && links_export(env, exports) &&
               ed25519_export(env, exports);
  return whole ? exports : NULL;
}
