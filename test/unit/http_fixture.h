/*
 * http_fixture.h
 *		What test_http.c needs around the client: name servers and HTTP servers
 *		that do exactly what a test says.
 *
 * Names are resolved by a getaddrinfo of our own, which libcurl finds before
 * the C library's, so nothing leaves the machine.  Servers are child processes
 * that play a script.  Included once, after postgres.h.
 */
#ifndef RETRY_HTTP_FIXTURE_H
#define RETRY_HTTP_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t children[16];
static int	child_count;

/* ---- names ---- */

static sem_t resolver_entered;
static sem_t resolver_release;
static sigset_t resolver_mask;
static int	lookups;

/*
 * Stands in for the C library's: "slow.test" waits for the semaphore,
 * "rebind.test" leads to a blocked address, "ok.test" and "origin-..." to the
 * endpoint's, everything else does not exist.
 */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **res)
{
	struct
	{
		struct addrinfo info;
		struct sockaddr_in address;
	}		   *entry;
	const char *address = NULL;

	__sync_fetch_and_add(&lookups, 1);
	if (strcmp(node, "slow.test") == 0)
	{
		pthread_sigmask(SIG_SETMASK, NULL, &resolver_mask);
		sem_post(&resolver_entered);
		sem_wait(&resolver_release);
	}
	else if (strcmp(node, "ok.test") == 0 || strncmp(node, "origin-", 7) == 0)
		address = "127.0.0.1";
	else if (strcmp(node, "rebind.test") == 0)
		address = "169.254.169.254";
	if (address == NULL)
		return EAI_NONAME;
	entry = calloc(1, sizeof(*entry));
	entry->info.ai_family = AF_INET;
	entry->info.ai_socktype = SOCK_STREAM;
	entry->info.ai_addrlen = sizeof(entry->address);
	entry->info.ai_addr = (struct sockaddr *) &entry->address;
	entry->address.sin_family = AF_INET;
	entry->address.sin_port = htons(service ? atoi(service) : 0);
	inet_pton(AF_INET, address, &entry->address.sin_addr);
	*res = &entry->info;
	return 0;
}

void
freeaddrinfo(struct addrinfo *res)
{
	free(res);
}

/* ---- files ---- */

static int	system_authorities_asked;

/*
 * OpenSSL looks for an authority that it was not told of by a file's name: in the
 * C library's stand here, it is seen to.
 */
int
stat(const char *path, struct stat *out)
{
	if (strncmp(path, "/etc/ssl/", 9) == 0)
		system_authorities_asked++;
	return fstatat(AT_FDCWD, path, out, 0);
}

/* ---- children ---- */

/* Runs a program and reads the port from its output: the first number after word. */
static int
start_program(char *const argv[], const char *word)
{
	int			out[2];
	char		line[500];
	FILE	   *f;
	int			port = 0;
	pid_t		pid;

	if (pipe(out) != 0 || (pid = fork()) < 0)
		return 0;
	if (pid == 0)
	{
		/* not to outlive a test that is killed */
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		dup2(out[1], 1);
		close(out[0]);
		execvp(argv[0], argv);
		_exit(127);
	}
	children[child_count++] = pid;
	close(out[1]);
	f = fdopen(out[0], "r");
	while (port == 0 && fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, word, strlen(word)) == 0)
			sscanf(line + strlen(word), "%d", &port);
	return port;				/* f stays open: the child may write on */
}

static int
listen_here(int backlog, int *port)
{
	struct sockaddr_in address = {0};
	socklen_t	len = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *) &address, len) != 0 || listen(fd, backlog) != 0 ||
		getsockname(fd, (struct sockaddr *) &address, &len) != 0)
		return -1;
	*port = ntohs(address.sin_port);
	return fd;
}

/* Reads one request without a body; false at the end. */
static bool
read_request(int fd)
{
	char		buf[4096];
	size_t		len = 0;
	ssize_t		n;

	while ((n = read(fd, buf + len, sizeof(buf) - 1 - len)) > 0)
	{
		len += n;
		buf[len] = '\0';
		if (strstr(buf, "\r\n\r\n") != NULL)
			return true;
	}
	return false;
}

/*
 * A server that plays one script for each connection, in turn: A answers a
 * request with the number of requests seen so far, C reads one and closes,
 * P answers half a header and closes, T sends trailers that say stop, H tells
 * script_has_request and never answers.
 */
static int	hanging[2];		/* pipe: a byte for each request that hangs */

static int
start_script(const char *const *scripts)
{
	int			port;
	int			listener = listen_here(10, &port);
	int			seen = 0;
	pid_t		pid;

	if (hanging[1] == 0 && pipe(hanging) != 0)
		return 0;
	if (fcntl(hanging[0], F_SETFL, O_NONBLOCK) != 0)
		return 0;
	pid = fork();

	if (pid != 0)
	{
		children[child_count++] = pid;
		close(listener);
		return port;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (; *scripts != NULL; scripts++)
	{
		int			fd = accept(listener, NULL, NULL);
		const char *act;
		char		answer[200];

		for (act = *scripts; *act != '\0' && read_request(fd); act++)
		{
			seen++;
			if (*act == 'H' && write(hanging[1], "", 1) == 1)
				for (;;)
					pause();
			if (*act == 'A')
				sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", seen);
			else if (*act == 'T')
				strcpy(answer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
					   "1\r\nx\r\n0\r\nRetry-Control: stop\r\nRetry-After: 9\r\n\r\n");
			else
				strcpy(answer, *act == 'P' ? "HTTP/1.1 200 OK\r\nContent-Le" : "");
			if (answer[0] != '\0' && write(fd, answer, strlen(answer)) < 0)
				break;
		}
		close(fd);
	}
	_exit(0);
}

static bool
script_has_request(void)
{
	char		byte;

	return read(hanging[0], &byte, 1) == 1;
}

static void
stop_last_child(void)
{
	pid_t		pid = children[--child_count];

	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void
stop_children(void)
{
	int			i;

	for (i = 0; i < child_count; i++)
		kill(children[i], SIGTERM);
	while (wait(NULL) > 0)
		;
}

#endif							/* RETRY_HTTP_FIXTURE_H */
