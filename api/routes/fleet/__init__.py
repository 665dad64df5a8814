"""``/v1/deployments`` as a list, and operators' marks on deployments."""

from preshuffle.api.routes.fleet import listing, marks
from preshuffle.api.routes.fleet.fleet_params import GROUPINGS, ORDERS, FleetParams
from preshuffle.api.routes.fleet.listing import list_page

__all__ = ["GROUPINGS", "ORDERS", "FleetParams", "list_page", "listing", "marks"]
