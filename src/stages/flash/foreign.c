/* SPDX-License-Identifier: Apache-2.0 */
#include "stages/flash/foreign.h"

#include <string.h>

/* In the order in which they are believed: a file system may carry the mark of a partition table.
 */
static const struct {
	size_t at;
	const char *bytes;
	size_t length;
	const char *name;
} signatures[] = {
	{1080, "\x53\xef", 2, "an ext2, ext3 or ext4 file system"},
	{0, "XFSB", 4, "an XFS file system"},
	{65600, "_BHRfS_M", 8, "a Btrfs file system"},
	{1024, "\x10\x20\xf5\xf2", 4, "an F2FS file system"},
	{32769, "CD001", 5, "an ISO 9660 file system"},
	{3, "NTFS    ", 8, "an NTFS file system"},
	{82, "FAT32   ", 8, "a FAT file system"},
	{0, "LUKS\xba\xbe", 6, "an encrypted volume (LUKS)"},
	{512, "LABELONE", 8, "a volume of LVM"},
	{4096, "\xfc\x4e\x2b\xa9", 4, "a part of a RAID"},
	{4086, "SWAPSPACE2", 10, "swap space"},
	{512, "EFI PART", 8, "a partition table"},
	{4096, "EFI PART", 8, "a partition table"},
	{510, "\x55\xaa", 2, "a partition table"},
};

const char *flash_foreign(const void *start, size_t bytes)
{
	const uint8_t *p = start;

	for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++)
		if (signatures[i].at + signatures[i].length <= bytes &&
		    memcmp(p + signatures[i].at, signatures[i].bytes, signatures[i].length) == 0)
			return signatures[i].name;
	return NULL;
}
