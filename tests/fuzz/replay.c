/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Feeds every file of the folders on the command line (and files named there)
 * to a fuzz target, so that the corpora run where there is no libFuzzer. Each
 * file is also cut short at every 1/16 of its length. Fails when there is none.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CUTS 16

static int feed_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	uint8_t *data;
	size_t size;

	if (!f || fstat(fileno(f), &st)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	size = (size_t)st.st_size;
	data = malloc(size + 1);
	if (!data || fread(data, 1, size, f) != size) {
		fprintf(stderr, "%s: cannot be read whole\n", path);
		exit(1);
	}
	fclose(f);
	for (size_t cut = 1; cut <= CUTS; cut++) {
		size_t bytes = size * cut / CUTS;
		/* A piece of its own: reading past its end is seen by the sanitizers. */
		uint8_t *piece = malloc(bytes + !bytes);

		if (!piece)
			exit(1);
		memcpy(piece, data, bytes);
		LLVMFuzzerTestOneInput(piece, bytes);
		free(piece);
	}
	free(data);
	return 1;
}

static int feed(const char *path)
{
	struct dirent *entry;
	DIR *dir = opendir(path);
	int count = 0;

	if (!dir)
		return feed_file(path);
	while ((entry = readdir(dir))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		count += feed_file(name);
	}
	closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	int count = 0;

	for (int i = 1; i < argc; i++)
		count += feed(argv[i]);
	printf("%d files\n", count);
	return count ? 0 : 1;
}
