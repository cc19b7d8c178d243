/*
 * The front: the program that a container runtime executes as the CNI plugin `ratchet`.
 *
 * It hands its environment and its standard input to a running ratchet-child and carries out the words that come
 * back. It decides nothing and knows nothing of JSON, labels or links. Whenever anything is not as it should be, it
 * becomes the Python parent (`ratchet-parent`, beside it), with the input as it came: so nothing depends on the front,
 * and nothing on the child.
 *
 * The words, and what the front does in return:
 *
 *   ANSWER  print these bytes and exit with this code
 *   BECOME  execute this program in place of the front; reply with the error if that is not possible
 *   RUN     run this program to its end; reply with its exit status and its output
 *   HOLD    keep these last words, and reply: from here on the child may change something
 *   SAY     write these bytes to standard error
 *   PARENT  become the Python parent
 *
 * Each word says how long to wait for the next one, and what to do if none comes: when the child is *lost* (it closed
 * the connection: it is dead), and when it is *late* or talks nonsense (it may still be at work). Before the first
 * HOLD or RUN both mean PARENT, because nothing has been done yet. Later the child decides, and where a second ADD would
 * do harm, the front prints the last words instead. docs/decisions/0011-the-front.md has the cases.
 *
 * Everything is opened close-on-exec; the numbers 0, 1 and 2 are open, or the front does not begin.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef FRONT_SOCKET /* the tests build fronts with other sockets; an environment variable could be anybody's */
#define FRONT_SOCKET "/run/ratchet/front.sock"
#endif
#ifndef FIRST_WORD_MS /* a child that is busy holds nobody up: starting Python takes no longer on a busy node */
#define FIRST_WORD_MS 100
#endif
#define INPUT_PAUSE_MS 500 /* for a standard input that nobody closes; the parent waits as long */
#define MOST_ENVIRONMENT (1u << 20)
#define MOST_INPUT (1u << 20)
#define MOST_WAIT_MS 600000u
#define MOST_PAYLOAD (64u << 20) /* a plugin's 16 MiB, every character of it escaped */
#define MAGIC 0x31465452u        /* "RTF1": another version of these structures has another number */
#define PARENT_NAME "ratchet-parent"

struct hello { /* then the environment, each entry with its final zero, and the input */
    uint32_t magic, environment_bytes, input_bytes, reserved;
    uint64_t net_namespace, mount_namespace;
};

enum kind { ANSWER = 1, BECOME, RUN, HOLD, SAY, PARENT };
enum policy { BE_PARENT, LAST_WORDS };

struct word { /* then the payload; with BECOME and RUN a descriptor comes along, the program's standard input */
    uint32_t magic, kind, payload_bytes;
    uint32_t exit_code;                 /* ANSWER: of this answer; HOLD: of the last words */
    uint32_t wait_ms;                   /* for the next word */
    uint32_t when_lost, when_late;      /* enum policy */
    uint32_t run_ms, most_output_bytes; /* RUN: 0 ms is no limit */
};

struct reply { /* then the output */
    uint32_t magic, error, status, flags, output_bytes;
};
enum { OUT_OF_TIME = 1, TOO_MUCH_OUTPUT = 2 };

struct bytes {
    char *data;
    size_t size;
};

static char message[sizeof(struct hello) + MOST_ENVIRONMENT + MOST_INPUT];
static char *input; /* in the message, behind the environment */
static size_t input_bytes;
static bool input_ended;
static int child = -1;
static struct bytes last_words;
static uint32_t last_exit_code, when_lost = BE_PARENT, when_late = BE_PARENT;

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}

/* Wait for a descriptor; false when the moment `until` has come (0: never). */
static bool ready(int fd, short events, long until)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        long left = until == 0 ? -1 : until - now_ms();
        if (until != 0 && left < 0)
            left = 0;
        int n = poll(&p, 1, (int)left);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* The exit of a front that has said what there was to say. A runtime that has gone is told nothing, as by the parent. */
static _Noreturn void answer(struct bytes text, uint32_t exit_code)
{
    signal(SIGPIPE, SIG_IGN);
    _exit(write_all(STDOUT_FILENO, text.data, text.size) ? (int)exit_code : 1);
}

/* Become the Python parent. It is told why, and where to find what has been read of an input without an end. */
static _Noreturn void be_parent(const char *why)
{
    char path[4096], reason[64], rest[32];
    char *argv[] = {path, reason, NULL, NULL};
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - sizeof "/" PARENT_NAME);
    char *slash = size <= 0 ? NULL : memrchr(path, '/', (size_t)size);
    int fd = input_bytes == 0 ? STDIN_FILENO : memfd_create("cni-config", MFD_CLOEXEC);
    snprintf(reason, sizeof reason, "--front=%s", why);
    if (fd > STDERR_FILENO && write_all(fd, input, input_bytes) && lseek(fd, 0, SEEK_SET) == 0) {
        if (input_ended) {
            fd = dup2(fd, STDIN_FILENO);
        } else {
            snprintf(rest, sizeof rest, "--input=%d", fd);
            argv[2] = rest;
            fcntl(fd, F_SETFD, 0);
        }
    } else if (input_bytes != 0) {
        fd = -1;
    }
    if (slash != NULL && fd >= 0) {
        strcpy(slash + 1, PARENT_NAME);
        execve(path, argv, environ);
    }
    static char helpless[] = "{\"code\": 199, \"msg\": \"ratchet: " PARENT_NAME " cannot be executed\"}\n";
    answer((struct bytes){helpless, sizeof helpless - 1}, 1);
}

static _Noreturn void give_up(uint32_t policy, const char *why)
{
    if (policy == LAST_WORDS)
        answer(last_words, last_exit_code);
    be_parent(why);
}

/* Read standard input behind the environment. */
static void read_input(void)
{
    while (input_bytes < MOST_INPUT) {
        if (!ready(STDIN_FILENO, POLLIN, now_ms() + INPUT_PAUSE_MS))
            be_parent("input");
        ssize_t n = read(STDIN_FILENO, input + input_bytes, MOST_INPUT - input_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            be_parent("input");
        if (n == 0) {
            input_ended = true;
            return;
        }
        input_bytes += (size_t)n;
    }
    be_parent("input");
}

static uint64_t identity(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 ? s.st_ino : 0;
}

static void connect_to_child(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = FRONT_SOCKET};
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof peer;
    child = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (child < 0 || connect(child, (struct sockaddr *)&address, sizeof address) != 0)
        be_parent(errno == EAGAIN ? "busy" : "no-child");
    if (getsockopt(child, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != 0)
        be_parent("stranger");
}

static void send_all(const char *data, size_t size, long until)
{
    while (size > 0) {
        ssize_t n = send(child, data, size, MSG_NOSIGNAL);
        if (n >= 0) {
            data += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            if (!ready(child, POLLOUT, until))
                give_up(when_late, "late");
        } else if (errno != EINTR) {
            give_up(when_lost, "lost");
        }
    }
}

/* Receive exactly so much, and the descriptor that may come with it. */
static void receive(char *data, size_t size, int *fd, long until)
{
    while (size > 0) {
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec part = {data, size};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg(child, &m, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (!ready(child, POLLIN, until))
                give_up(when_late, "late");
            continue;
        }
        if (n <= 0)
            give_up(when_lost, "lost");
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        if (c != NULL) {
            if ((m.msg_flags & MSG_CTRUNC) != 0 || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
                c->cmsg_len != CMSG_LEN(sizeof *fd) || *fd >= 0)
                give_up(when_late, "nonsense");
            memcpy(fd, CMSG_DATA(c), sizeof *fd);
        }
        data += n;
        size -= (size_t)n;
    }
}

/* Return the strings, each with its final zero, as execve wants them. */
static char **strings(struct bytes payload)
{
    size_t count = 0;
    if (payload.size == 0 || payload.data[payload.size - 1] != '\0')
        give_up(when_late, "nonsense");
    for (size_t i = 0; i < payload.size; i++)
        count += payload.data[i] == '\0';
    char **list = calloc(count + 1, sizeof *list), *at = payload.data;
    if (list == NULL)
        give_up(when_late, "nonsense");
    for (size_t i = 0; i < count; i++) {
        list[i] = at;
        at += strlen(at) + 1;
    }
    return list;
}

static void reply(struct reply r, const char *output, long until)
{
    r.magic = MAGIC;
    send_all((const char *)&r, sizeof r, until);
    send_all(output, r.output_bytes, until);
}

/* Python ignores these two, and the parent gives them back to the programs that it starts. */
static const int given_back[] = {SIGPIPE, SIGXFSZ};

static uint32_t become(char **list, int source)
{
    char *argv[] = {list[0], NULL};
    for (size_t i = 0; i < sizeof given_back / sizeof *given_back; i++)
        signal(given_back[i], SIG_DFL);
    if (dup2(source, STDIN_FILENO) == STDIN_FILENO)
        execve(list[0], argv, list + 1);
    return (uint32_t)errno;
}

static int spawn(pid_t *pid, char **list, int source, int output)
{
    char *argv[] = {list[0], NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    for (size_t i = 0; i < sizeof given_back / sizeof *given_back; i++)
        sigaddset(&defaults, given_back[i]);
    int error = posix_spawn_file_actions_init(&actions);
    error = error ? error : posix_spawnattr_init(&attributes);
    error = error ? error : posix_spawn_file_actions_adddup2(&actions, source, STDIN_FILENO);
    error = error ? error : posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    error = error ? error : posix_spawnattr_setsigdefault(&attributes, &defaults);
    error = error ? error : posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    return error ? error : posix_spawn(pid, list[0], &actions, &attributes, argv, list + 1);
}

/* Run a program to its end, as ratchet.cni.invoke does, and tell the child what it printed. */
static void run(const struct word *w, char **list, int source)
{
    struct reply r = {0};
    long until = w->run_ms == 0 ? 0 : now_ms() + w->run_ms;
    size_t room = 65536, size = 0;
    char *output = malloc(room);
    int ends[2] = {-1, -1}, status = 0;
    pid_t pid = 0;
    if (output == NULL || pipe2(ends, O_CLOEXEC) != 0)
        r.error = ENOMEM;
    else
        r.error = (uint32_t)spawn(&pid, list, source, ends[1]);
    close(ends[1]);
    while (r.error == 0 && r.flags == 0) {
        if (!ready(ends[0], POLLIN, until)) {
            r.flags = OUT_OF_TIME;
            break;
        }
        ssize_t n = read(ends[0], output + size, room - size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        size += (size_t)n;
        if (size > w->most_output_bytes)
            r.flags = TOO_MUCH_OUTPUT;
        if (size < room)
            continue;
        char *larger = realloc(output, room *= 2);
        if (larger == NULL)
            r.flags = TOO_MUCH_OUTPUT;
        else
            output = larger;
    }
    if (r.error == 0) {
        int handle = until == 0 || r.flags != 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
        if (handle >= 0 && !ready(handle, POLLIN, until))
            r.flags = OUT_OF_TIME;
        if (r.flags != 0)
            kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        close(handle);
    }
    close(ends[0]);
    r.status = (uint32_t)status;
    r.output_bytes = r.flags == 0 ? (uint32_t)size : 0;
    reply(r, output, now_ms() + w->wait_ms);
    free(output);
}

/* Carry out one word. Returns when there is to be another one. */
static void obey(const struct word *w, struct bytes payload, int source)
{
    bool executes = w->kind == BECOME || w->kind == RUN;
    if (executes != (source >= 0) || (executes && input_bytes == 0))
        give_up(when_late, "nonsense");
    if (w->kind == HOLD) {
        last_words = payload; /* is kept */
        last_exit_code = w->exit_code;
    } else if (w->kind == ANSWER) {
        answer(payload, w->exit_code);
    } else if (w->kind == SAY) {
        signal(SIGPIPE, SIG_IGN);
        if (write(STDERR_FILENO, payload.data, payload.size) < 0) { /* the parent's log does not mind either */
        }
    } else if (w->kind == PARENT) {
        be_parent("told");
    }
    char **list = executes ? strings(payload) : NULL;
    when_lost = w->when_lost;
    when_late = w->when_late;
    if (w->kind == HOLD)
        reply((struct reply){0}, NULL, now_ms() + w->wait_ms);
    else if (w->kind == BECOME)
        reply((struct reply){.error = become(list, source)}, NULL, now_ms() + w->wait_ms);
    else if (w->kind == RUN)
        run(w, list, source);
    free(list);
    if (w->kind != HOLD)
        free(payload.data);
    if (source >= 0)
        close(source);
}

int main(void)
{
    struct hello hello = {.magic = MAGIC};
    struct stat s;
    size_t size = sizeof hello;
    /* A file would take the number of a stream that is closed; a terminal is somebody who tries the program. */
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fstat(fd, &s) != 0 || (fd == STDIN_FILENO && S_ISCHR(s.st_mode)))
            be_parent("streams");
    for (char **entry = environ; *entry != NULL; entry++) {
        size_t length = strlen(*entry) + 1;
        if (length > sizeof hello + MOST_ENVIRONMENT - size)
            be_parent("input");
        memcpy(message + size, *entry, length);
        size += length;
    }
    input = message + size;
    read_input();
    /* Not earlier: the child would be woken twice, once for the connection and once for what comes through it. */
    connect_to_child();
    hello.environment_bytes = (uint32_t)(size - sizeof hello);
    hello.input_bytes = (uint32_t)input_bytes;
    hello.net_namespace = identity("/proc/self/ns/net");
    hello.mount_namespace = identity("/proc/self/ns/mnt");
    memcpy(message, &hello, sizeof hello);
    long until = now_ms() + FIRST_WORD_MS;
    send_all(message, size + input_bytes, until);
    for (;;) {
        struct word w;
        struct bytes payload;
        int source = -1;
        receive((char *)&w, sizeof w, &source, until);
        if (w.magic != MAGIC || w.kind < ANSWER || w.kind > PARENT || w.payload_bytes > MOST_PAYLOAD ||
            w.when_lost > LAST_WORDS || w.when_late > LAST_WORDS || w.wait_ms > MOST_WAIT_MS ||
            w.run_ms > MOST_WAIT_MS ||
            (w.kind != HOLD && last_words.data == NULL && (w.when_lost != BE_PARENT || w.when_late != BE_PARENT)))
            give_up(when_late, "nonsense");
        payload = (struct bytes){malloc(w.payload_bytes + 1), w.payload_bytes};
        if (payload.data == NULL)
            give_up(when_late, "nonsense");
        receive(payload.data, payload.size, &source, until);
        obey(&w, payload, source);
        until = now_ms() + w.wait_ms;
    }
}
