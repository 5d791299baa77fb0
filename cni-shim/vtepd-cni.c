/*
 * vtepd-cni: the CNI plugin that a container runtime executes. It decides nothing: it hands the request
 * to the vtepd daemon and prints the daemon's answer. It is C because it runs once for every pod: a
 * static program starts in under a millisecond. One file of some length, so that what runs as root for every
 * pod can be read from top to bottom; only the JSON is elsewhere (json-member.c).
 *
 * To the daemon's unix socket it sends one frame (numbers in network byte order; cni-shim/frames.ts has
 * the other end):
 *
 *     "VTPQ" | length of the rest | COMMAND NUL CONTAINERID NUL NETNS NUL IFNAME NUL ARGS NUL PATH NUL
 *     (the values of CNI_*) | the network configuration, as it came on stdin
 *
 * and for a pod whose namespace it can open, along with the first bytes, two descriptors (SCM_RIGHTS):
 * the namespace, and a netlink socket opened inside it. With those the daemon needs neither the runtime's
 * mounts nor CAP_SYS_ADMIN. Back comes
 *
 *     "VTPA" | length of the rest | exit status | what to print
 *
 * and before it, for a pod in whose namespace IPv6 is off (Docker and containerd do that), perhaps
 *
 *     "VTP6" | 4 | 0        the pod's interface stands: switch IPv6 on for it and for the loopback
 *
 * which is answered with "VTPR" | 4 | the errno, 0 for success. The settings of a namespace can only be
 * written by a process inside it, which the daemon never is.
 *
 * With the daemon away, or not answering in time, ADD and CHECK fail with the CNI error 11 (try again
 * later), STATUS with 50; DEL writes the very same frame into `spool/` beside the socket, which the
 * daemon empties, and succeeds: a pod must be removable while the daemon is being upgraded.
 *
 * Environment beside CNI's own: VTEPD_CNI_TIMEOUT_MS, how long the daemon may take (30000).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "json-member.h"

/* The CNI specification's error codes that can arise here. */
#define CNI_UNKNOWN_CONTAINER 3
#define CNI_INVALID_ENVIRONMENT 4
#define CNI_IO_FAILURE 5
#define CNI_DECODE_FAILURE 6
#define CNI_INVALID_CONFIG 7
#define CNI_TRY_AGAIN_LATER 11
#define CNI_NOT_AVAILABLE 50

#define DEFAULT_SOCKET "/run/vtepd/vtepd.sock"
#define DEFAULT_TIMEOUT_MS 30000

/* A GC of a full /16 names 65,534 attachments, each a 64-digit id and an interface name: 8 MiB. */
#define MAX_CONFIG_BYTES (8u * 1024 * 1024)
#define MAX_ENVIRONMENT_BYTES (128u * 1024)
#define MAX_ANSWER_BYTES (1024u * 1024)
#define FRAME_HEADER_BYTES 8

/* The same list as in cni-shim/versions.ts; a test compares them. */
static const char *const VERSIONS[] = { "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0" };
#define VERSION_COUNT (sizeof(VERSIONS) / sizeof(VERSIONS[0]))

/* Static, and touched only as far as they are filled. */
static char frame[FRAME_HEADER_BYTES + MAX_ENVIRONMENT_BYTES + MAX_CONFIG_BYTES + 1];
static char answer[12 + MAX_ANSWER_BYTES];

static size_t frame_length;
static const char *config;
static size_t config_length;
static const char *answer_version = "1.1.0";

struct pod {
	int namespace_fd;
	int netlink_fd;
};

static void write_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, bytes, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			exit(1);
		bytes += written;
		length -= (size_t)written;
	}
}

/* Prints a CNI error object and ends the program. */
__attribute__((noreturn, format(printf, 2, 3))) static void fail(int code, const char *format, ...)
{
	/* A path of PATH_MAX bytes, each of them escaped in six. */
	static char message[PATH_MAX + 1024];
	static char json[6 * sizeof(message) + 256];
	size_t length;
	va_list values;

	va_start(values, format);
	vsnprintf(message, sizeof(message), format, values);
	va_end(values);
	length = (size_t)snprintf(json, sizeof(json), "{\"cniVersion\":\"%s\",\"code\":%d,\"msg\":\"",
				  answer_version, code);
	for (const char *c = message; *c != '\0'; c++) {
		unsigned char byte = (unsigned char)*c;

		/* Bytes beyond ASCII may not be UTF-8, which JSON must be. */
		if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
			length += (size_t)snprintf(json + length, sizeof(json) - length, "\\u%04x", byte);
		else
			json[length++] = *c;
	}
	length += (size_t)snprintf(json + length, sizeof(json) - length, "\"}\n");
	write_all(STDOUT_FILENO, json, length);
	exit(1);
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value == NULL ? "" : value;
}

/* Milliseconds of the monotonic clock. */
static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int timeout_ms(void)
{
	char *end;
	const char *text = environment("VTEPD_CNI_TIMEOUT_MS");
	long value = strtol(text, &end, 10);

	return *text != '\0' && *end == '\0' && value > 0 && value <= 3600000 ? (int)value : DEFAULT_TIMEOUT_MS;
}

static void append_environment(const char *name)
{
	const char *value = environment(name);
	size_t length = strlen(value) + 1;

	if (length > FRAME_HEADER_BYTES + MAX_ENVIRONMENT_BYTES - frame_length)
		fail(CNI_INVALID_ENVIRONMENT, "%s: the CNI environment is longer than %u bytes", name,
		     MAX_ENVIRONMENT_BYTES);
	memcpy(frame + frame_length, value, length);
	frame_length += length;
}

/* Everything the runtime told us, as the frame to send. */
static void read_request(void)
{
	uint32_t length;

	frame_length = FRAME_HEADER_BYTES;
	append_environment("CNI_COMMAND");
	append_environment("CNI_CONTAINERID");
	append_environment("CNI_NETNS");
	append_environment("CNI_IFNAME");
	append_environment("CNI_ARGS");
	append_environment("CNI_PATH");
	config = frame + frame_length;
	/* One byte more than is allowed, to know that there was more. */
	while (config_length <= MAX_CONFIG_BYTES) {
		ssize_t got = read(STDIN_FILENO, frame + frame_length, MAX_CONFIG_BYTES + 1 - config_length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail(CNI_IO_FAILURE, "cannot read the network configuration from stdin: %s", strerror(errno));
		if (got == 0)
			break;
		frame_length += (size_t)got;
		config_length += (size_t)got;
	}
	if (config_length > MAX_CONFIG_BYTES)
		fail(CNI_INVALID_CONFIG, "the network configuration is longer than %u bytes", MAX_CONFIG_BYTES);
	length = htonl((uint32_t)(frame_length - FRAME_HEADER_BYTES));
	memcpy(frame, "VTPQ", 4);
	memcpy(frame + 4, &length, 4);
}

/* Errors are reported in the version that the configuration speaks, where we speak it too. */
static void choose_answer_version(void)
{
	char version[16];

	if (json_string_member(config, config_length, "cniVersion", version, sizeof(version)) != JSON_MEMBER_FOUND)
		return;
	for (size_t i = 0; i < VERSION_COUNT; i++)
		if (strcmp(version, VERSIONS[i]) == 0)
			answer_version = VERSIONS[i];
}

__attribute__((noreturn)) static void print_versions(void)
{
	char json[256];
	size_t length = (size_t)snprintf(json, sizeof(json), "{\"cniVersion\":\"%s\",\"supportedVersions\":[",
					 answer_version);

	for (size_t i = 0; i < VERSION_COUNT; i++)
		length += (size_t)snprintf(json + length, sizeof(json) - length, "%s\"%s\"", i == 0 ? "" : ",",
					   VERSIONS[i]);
	length += (size_t)snprintf(json + length, sizeof(json) - length, "]}\n");
	write_all(STDOUT_FILENO, json, length);
	exit(0);
}

/* The network configuration's `socket`: several daemons on one machine each have their own. */
static struct sockaddr_un daemon_address(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t space = sizeof(address.sun_path);

	switch (json_string_member(config, config_length, "socket", address.sun_path, space)) {
	case JSON_MEMBER_FOUND:
		if (address.sun_path[0] != '/')
			fail(CNI_INVALID_CONFIG, "socket: \"%s\" is not an absolute path", address.sun_path);
		break;
	case JSON_MEMBER_ABSENT:
		memcpy(address.sun_path, DEFAULT_SOCKET, sizeof(DEFAULT_SOCKET));
		break;
	case JSON_MEMBER_NOT_A_STRING:
		fail(CNI_INVALID_CONFIG, "socket: must be the path of the daemon's socket, a string");
	case JSON_MEMBER_UNUSABLE:
		fail(CNI_INVALID_CONFIG, "socket: must be printable and at most %zu bytes long", space - 1);
	case JSON_MEMBER_MALFORMED:
		fail(CNI_DECODE_FAILURE, "the network configuration on stdin is not a JSON object");
	}
	return address;
}

/* Best effort: a node may have IPv6 switched off, or /proc/sys mounted read-only. */
static void write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0) {
		/* Then it stays as it is; the bridge drops router advertisements all the same. */
	}
	close(fd);
}

/*
 * Opens the pod's namespace, enters it (this process is about to end, so it stays there) and opens the
 * netlink socket in it. A pod that is being deleted may have lost its namespace already.
 */
static struct pod open_pod(const char *command)
{
	struct pod none = { -1, -1 };
	struct pod pod = none;
	const char *path = environment("CNI_NETNS");
	bool deleting = strcmp(command, "DEL") == 0;
	bool adding = strcmp(command, "ADD") == 0;

	if ((!adding && !deleting && strcmp(command, "CHECK") != 0) || *path == '\0')
		return none;
	pod.namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (pod.namespace_fd < 0) {
		if (deleting)
			return none;
		fail(errno == ENOENT ? CNI_UNKNOWN_CONTAINER : CNI_INVALID_ENVIRONMENT, "CNI_NETNS: cannot open %s: %s",
		     path, strerror(errno));
	}
	if (setns(pod.namespace_fd, CLONE_NEWNET) < 0) {
		if (deleting) {
			close(pod.namespace_fd);
			return none;
		}
		if (errno == EPERM)
			fail(CNI_INVALID_ENVIRONMENT, "CNI_NETNS: may not enter %s: the plugin must run as root", path);
		fail(CNI_INVALID_ENVIRONMENT, "CNI_NETNS: %s is not a network namespace: %s", path, strerror(errno));
	}
	pod.netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (pod.netlink_fd < 0)
		fail(CNI_IO_FAILURE, "cannot open a netlink socket in %s: %s", path, strerror(errno));
	if (adding) {
		/* Before the pod's interface exists: a pod must not take routes from its neighbours (CVE-2020-10749). */
		write_setting("/proc/sys/net/ipv6/conf/all/accept_ra", "0");
		write_setting("/proc/sys/net/ipv6/conf/default/accept_ra", "0");
		/* The link-local address is of the pod's MAC, which is unique: no second of waiting for objections. */
		write_setting("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
	}
	return pod;
}

/* Returns an errno, 0 for success: also where it is on already. */
static int switch_ipv6_on(const char *interface)
{
	char path[128];
	int fd, error;

	if (*interface == '\0' || strchr(interface, '/') != NULL || *interface == '.' ||
	    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", interface) >= (int)sizeof(path))
		return EINVAL;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = write(fd, "0", 1) == 1 ? 0 : errno;
	close(fd);
	return error;
}

/*
 * As the daemon asks: only for the interface that it made, so that IPv6 stays off for the pod's others, and
 * for the loopback, by which a pod reaches its own address. False: the daemon is away.
 */
static bool settle_ipv6(int daemon)
{
	char reply[12] = "VTPR";
	uint32_t length = htonl(4), error;

	error = htonl((uint32_t)switch_ipv6_on("lo"));
	if (error == 0)
		error = htonl((uint32_t)switch_ipv6_on(environment("CNI_IFNAME")));
	memcpy(reply + 4, &length, 4);
	memcpy(reply + 8, &error, 4);
	return send(daemon, reply, sizeof(reply), MSG_NOSIGNAL) == (ssize_t)sizeof(reply);
}

/* Sends the frame, the descriptors with its first bytes. False: the daemon is away or hangs. */
static bool send_request(int daemon, const struct pod *pod)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec data = { frame, frame_length };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

	if (pod->namespace_fd >= 0) {
		int descriptors[2] = { pod->namespace_fd, pod->netlink_fd };

		memset(&control, 0, sizeof(control));
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(descriptors));
		memcpy(CMSG_DATA(&control.header), descriptors, sizeof(descriptors));
	}
	while (data.iov_len > 0) {
		ssize_t sent = sendmsg(daemon, &message, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		message.msg_control = NULL;
		message.msg_controllen = 0;
		data.iov_base = (char *)data.iov_base + sent;
		data.iov_len -= (size_t)sent;
	}
	return true;
}

/* Reads exactly so many bytes. False: the daemon went away, or the time was up. */
static bool receive(int daemon, char *bytes, size_t length, int64_t deadline_ms)
{
	while (length > 0) {
		struct pollfd readable = { .fd = daemon, .events = POLLIN };
		int64_t left = deadline_ms - now_ms();
		ssize_t got;

		if (left <= 0)
			return false;
		if (poll(&readable, 1, (int)left) < 0 && errno != EINTR)
			return false;
		if (readable.revents == 0)
			continue;
		got = recv(daemon, bytes, length, MSG_DONTWAIT);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return false;
		bytes += got;
		length -= (size_t)got;
	}
	return true;
}

/*
 * Reads the begin of the daemon's answer, doing before what it asks for, which is once at most. False: there
 * is no answer.
 */
static bool receive_answer(int daemon, const struct pod *pod, int64_t deadline_ms)
{
	if (!receive(daemon, answer, 12, deadline_ms))
		return false;
	if (memcmp(answer, "VTP6", 4) == 0) {
		if (pod->namespace_fd < 0 || !settle_ipv6(daemon) || !receive(daemon, answer, 12, deadline_ms))
			return false;
	}
	return memcmp(answer, "VTPA", 4) == 0;
}

/* Asks the daemon; prints what it answers and ends the program. Returns when there is no whole answer. */
static void ask_daemon(const struct sockaddr_un *address, const struct pod *pod, int64_t deadline_ms)
{
	int64_t left = deadline_ms - now_ms();
	struct timeval limit = { left / 1000, (left % 1000) * 1000 };
	int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint32_t length, status;

	if (daemon < 0)
		fail(CNI_IO_FAILURE, "cannot open a socket: %s", strerror(errno));
	/* Bounds connect (a full backlog) and sendmsg (a daemon that does not read). */
	setsockopt(daemon, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(daemon, (const struct sockaddr *)address, sizeof(*address)) == 0 && send_request(daemon, pod) &&
	    receive_answer(daemon, pod, deadline_ms)) {
		memcpy(&length, answer + 4, 4);
		memcpy(&status, answer + 8, 4);
		length = ntohl(length);
		if (length >= 4 && length - 4 <= MAX_ANSWER_BYTES && receive(daemon, answer + 12, length - 4, deadline_ms)) {
			write_all(STDOUT_FILENO, answer + 12, length - 4);
			exit(status == 0 ? 0 : 1);
		}
	}
	close(daemon);
}

/* Keeps a DEL for the daemon: a whole file or none. False, with errno, when that cannot be done. */
static bool spool_request(const struct sockaddr_un *address)
{
	char folder[sizeof(address->sun_path) + 8];
	char path[sizeof(folder) + 64];
	char temporary[sizeof(folder) + 64];
	char name[48];
	struct timespec now;
	size_t written = 0;
	int fd, saved;

	/* Gone with the daemon's run directory (systemd removes it) or not there yet: then we make it. */
	snprintf(folder, sizeof(folder), "%s", address->sun_path);
	*strrchr(folder, '/') = '\0';
	mkdir(folder, 0755);
	snprintf(strchr(folder, '\0'), 8, "/spool");
	mkdir(folder, 0700);
	clock_gettime(CLOCK_REALTIME, &now);
	/* The daemon takes them in the order of their names. */
	snprintf(name, sizeof(name), "%010lld.%09ld.%d", (long long)now.tv_sec, now.tv_nsec, (int)getpid());
	snprintf(temporary, sizeof(temporary), "%s/.%s", folder, name);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	while (written < frame_length) {
		ssize_t got = write(fd, frame + written, frame_length - written);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		written += (size_t)got;
	}
	if (written == frame_length && fsync(fd) == 0 && rename(temporary, path) == 0) {
		close(fd);
		return true;
	}
	saved = errno;
	close(fd);
	unlink(temporary);
	errno = saved;
	return false;
}

int main(void)
{
	const char *command = environment("CNI_COMMAND");
	struct sockaddr_un address;
	struct pod pod;
	int64_t deadline_ms;

	signal(SIGPIPE, SIG_IGN);
	if (*command == '\0')
		fail(CNI_INVALID_ENVIRONMENT,
		     "CNI_COMMAND: not set; this is a CNI plugin, which a container runtime executes");
	read_request();
	choose_answer_version();
	if (strcmp(command, "VERSION") == 0)
		print_versions();
	address = daemon_address();
	pod = open_pod(command);
	deadline_ms = now_ms() + timeout_ms();
	ask_daemon(&address, &pod, deadline_ms);

	if (strcmp(command, "DEL") == 0) {
		if (spool_request(&address))
			return 0;
		fail(CNI_TRY_AGAIN_LATER, "vtepd does not answer at %s, and the request cannot be kept for it: %s",
		     address.sun_path, strerror(errno));
	}
	fail(strcmp(command, "STATUS") == 0 ? CNI_NOT_AVAILABLE : CNI_TRY_AGAIN_LATER,
	     "vtepd does not answer at %s: is the daemon running? (systemctl status vtepd)", address.sun_path);
}
