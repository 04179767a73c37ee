"""Module packages: reading, checking, naming and signing what users upload (pure but for `directory`).

Nothing of a package is ever imported or run here; that happens in the sandbox only.
"""

from company.package.archive import MAX_BYTES, MAX_FILES, archive_of, read_archive_untrusted, tidy_files_untrusted
from company.package.check import PackageInfo, check_package, check_params
from company.package.digests import (
    MAX_PROCESSOR_BYTES,
    files_digest,
    processor_archive,
    processor_digest,
    processor_files,
    processor_files_untrusted,
)
from company.package.directory import PackageFiles, read_package, read_package_dir
from company.package.errors import ArchiveRefused, PackageInvalid, TooLarge
from company.package.manifest import DEFAULT_MEMORY_BYTES, DEFAULT_TIME_LIMIT_S, Manifest
from company.package.signing import PackageClaim, claim_of, sign_package, verify_package

__all__ = [
    "DEFAULT_MEMORY_BYTES", "DEFAULT_TIME_LIMIT_S", "MAX_BYTES", "MAX_FILES", "MAX_PROCESSOR_BYTES", "ArchiveRefused", "Manifest",
    "PackageClaim", "PackageFiles", "PackageInfo", "PackageInvalid", "TooLarge", "archive_of", "check_package", "check_params",
    "claim_of", "files_digest", "processor_archive", "processor_digest", "processor_files", "processor_files_untrusted",
    "read_archive_untrusted", "read_package", "read_package_dir", "sign_package", "tidy_files_untrusted", "verify_package",
]  # fmt: skip
