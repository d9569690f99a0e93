#!/usr/bin/env bash
# Takes away what deploy.core-infra.json and deploy_event_grid.json made in a resource group, and nothing else.
#
#   infra/teardown.sh RESOURCE_GROUP          says what would go
#   infra/teardown.sh RESOURCE_GROUP --yes    takes it away, and frees the names of what Azure keeps after deletion
#
# Made by the templates is what has the tag app=signalbox; resources that were there before have it not and stay, and
# so does the group itself. The training data goes with a data account that the template made. Needs `az login`.
set -euo pipefail

group=${1:?"give the resource group: infra/teardown.sh RESOURCE_GROUP [--yes]"}
answer=${2:-}
case $answer in
  "" | --yes) ;;
  *) echo "'$answer' is no option; there is only --yes" >&2; exit 2 ;;
esac

ours() { az resource list --resource-group "$group" --tag app=signalbox --query "[$1].id" --output tsv; }
of_type() { ours "?type=='$1'"; }

resources=$(ours "")
if [ -z "$resources" ]; then
  echo "Nothing in $group has the tag app=signalbox."
  exit 0
fi
echo "In $group, made by Signalbox:"
printf '%s\n' "$resources"
if [ "$answer" != --yes ]; then
  echo "Nothing was deleted. To delete all of these, with the training data in them: infra/teardown.sh $group --yes"
  exit 0
fi

# Read before the resources go: what Azure keeps by name, and roles on resources that stay.
vaults=$(az keyvault list --resource-group "$group" \
  --query "[?tags.app=='signalbox' && !properties.enablePurgeProtection].name" --output tsv)
principals=$(az identity list --resource-group "$group" --query "[?tags.app=='signalbox'].principalId" --output tsv)
for principal in $principals; do
  roles=$(az role assignment list --all --assignee-object-id "$principal" --query "[].id" --output tsv)
  # shellcheck disable=SC2086 # one argument for each id
  [ -z "$roles" ] || az role assignment delete --ids $roles
done

# A workspace is purged, so that its name is free; deleting it takes its compute and endpoints along.
for workspace in $(of_type Microsoft.MachineLearningServices/workspaces); do
  az rest --method delete --url "https://management.azure.com$workspace?api-version=2025-06-01&forceToPurge=true"
  az resource wait --deleted --ids "$workspace" --api-version 2025-06-01
done
# Without --force, the logs' workspace comes back with its old content when one of that name is made.
for logs in $(of_type Microsoft.OperationalInsights/workspaces); do
  az monitor log-analytics workspace delete --force --yes --resource-group "$group" --workspace-name "${logs##*/}"
done
for budget in $(az consumption budget list --resource-group-name "$group" \
  --query "[?starts_with(name, 'budget-')].name" --output tsv); do
  az consumption budget delete --resource-group-name "$group" --budget-name "$budget"
done

# Some go only after others (an app before its plan): again, as long as it gets on.
left=$(ours "")
while [ -n "$left" ]; do
  # shellcheck disable=SC2086 # one argument for each id
  az resource delete --ids $left --verbose || true
  before=$left
  left=$(ours "")
  if [ "$left" = "$before" ]; then
    echo "These would not go; look at them in the portal, then run this again:" >&2
    printf '%s\n' "$left" >&2
    exit 1
  fi
done

for vault in $vaults; do
  az keyvault purge --name "$vault"
done
echo "Gone. The resource group $group is left: 'az group delete --name $group' takes it away with all that is in it."
