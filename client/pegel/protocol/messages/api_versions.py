"""ApiVersions (API 18), versions 0 to 4.

Request:
- Versions 0 through 2 of ApiVersionsRequest are the same.
- Version 3 is the first flexible version and adds ClientSoftwareName and ClientSoftwareVersion.
- Version 4 fixes KAFKA-17011, which blocked SupportedFeatures.MinVersion in the response from
  being 0.

Response:
- Version 1 adds throttle time to the response.
- Starting in version 2, on quota violation, brokers send out responses before throttling.
- Version 3 is the first flexible version. Tagged fields are only supported in the body but not
  in the header. The length of the header must not change in order to guarantee the backward
  compatibility.
- Version 4 fixes KAFKA-17011, which blocked SupportedFeatures.MinVersion from being 0.
"""

from __future__ import annotations

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.schema import Message, Struct, array, boolean, int16, int32, int64, string


class ApiVersionsRequest(Message):
    api_key = ApiKey.API_VERSIONS

    client_software_name: str = string("3+")
    client_software_version: str = string("3+")


class ApiVersion(Struct):
    api_key: int = int16("0+")
    min_version: int = int16("0+")
    max_version: int = int16("0+")


class SupportedFeatureKey(Struct):
    name: str = string("3+")
    min_version: int = int16("3+")
    max_version: int = int16("3+")


class FinalizedFeatureKey(Struct):
    name: str = string("3+")
    max_version_level: int = int16("3+")
    min_version_level: int = int16("3+")


class ApiVersionsResponse(Message):
    api_key = ApiKey.API_VERSIONS

    error_code: int = int16("0+")
    api_keys: list[ApiVersion] = array(ApiVersion, "0+")
    throttle_time_ms: int = int32("1+")
    supported_features: list[SupportedFeatureKey] = array(SupportedFeatureKey, "3+", tag=0)
    finalized_features_epoch: int = int64("3+", -1, tag=1)
    finalized_features: list[FinalizedFeatureKey] = array(FinalizedFeatureKey, "3+", tag=2)
    zk_migration_ready: bool = boolean("3+", tag=3)
